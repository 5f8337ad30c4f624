"""The commands about backups: backup, restore.

Not for: rules; they are in `operations.backup.backup` and `operations.backup.restore`.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway import process
from gateway.audit.messages import Actor
from gateway.settings import GatewaySettings, load
from operations import databases
from operations.backup.backup import Beside, backup
from operations.backup.restore import Restored, restore, verify, verify_trail
from operations.cli.archive import print_findings
from operations.cli.terminal import AsJson, Progress, caller, console, print_json
from operations.site_settings import SiteSettings
from pacs.archive.files import Files


def backup_command(
    target: Annotated[Path, typer.Argument(help="A folder, best on another machine's volume.")],
    as_json: AsJson = False,
) -> None:
    """Copy databases, images, audit trail and users while the site works; again into a folder, only what is new.

    A backup that was cut off is taken up again by the next one. Backups hold patient data: keep them where only those
    may read who may see the images.

    Example: gateway backup /mnt/backup
    """
    settings = SiteSettings.load()
    beside = Beside(settings.relay.audit_path, settings.relay.users_path)
    with databases.archive(settings.pacs) as archive, databases.worklist(settings.worklist) as worklist:
        taken = backup(
            worklist,
            archive,
            Files(settings.pacs.storage_path),
            target,
            beside=beside,
            now=datetime.now(UTC),
            step=Progress("files looked at").step,
        )
    if as_json:
        print_json(taken.facts())
    else:
        console.print(f"{taken.folder}: {taken.files} files, {taken.new_files} of them new.", soft_wrap=True)
        for path in (*taken.missing, *taken.damaged):
            console.print(f"Missing or damaged: {path}. See 'gateway fsck --hashes'.", soft_wrap=True)
        if taken.linked:
            console.print("On the same volume as the images: it protects from mistakes, not from a broken disk.")
    raise SystemExit(process.EXIT_FAILED if taken.missing or taken.damaged else process.EXIT_OK)


def restore_command(
    source: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A backup, or a folder of backups.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to restore to; it has to be empty.")],
    verify_too: Annotated[
        bool, typer.Option("--verify", help="Read it all again, and compare files and index.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup, or the newest one of a folder, back into an empty folder, which is a data folder then.

    Everything is compared with the manifest on the way. What was owed to the cloud is owed again. To work with it, stop
    the services and let GATEWAY_DATA_DIR name the folder.

    Example: gateway restore /mnt/backup --to /var/lib/gateway-restored --verify
    """
    operator, site = Actor(caller()), load(GatewaySettings).site
    step = Progress("files restored").step
    restored = restore(source, to, who=operator, site=site, now=datetime.now(UTC), step=step)
    findings = list(verify(to, now=datetime.now(UTC))) if verify_too else []
    broken = list(verify_trail(to)) if verify_too else []
    if as_json:
        seen = {"findings": [each.facts() for each in findings], "trail_findings": [asdict(each) for each in broken]}
        print_json(restored.facts() | (seen if verify_too else {}))
    else:
        console.print(f"{restored.instances} instances of {restored.studies} studies, {restored.files} files;"
                      f" {restored.owed} events are owed to the cloud.", soft_wrap=True)  # fmt: skip
        console.print(_older(restored), soft_wrap=True, highlight=False)
        print_findings(iter(findings), as_json=False)
        for each in broken:
            console.print(f"{each.code}: {each.file}:{each.line} {each.text}", soft_wrap=True, highlight=False)
    raise SystemExit(process.EXIT_FAILED if findings or broken else process.EXIT_OK)


def _older(restored: Restored) -> str:
    if not restored.audit_messages:
        return "The backup has no audit trail."
    return (f"The audit trail has {restored.audit_messages} messages and says that it was restored; those that were"
            " written after the backup are not in it: keep the old folder's.")  # fmt: skip
