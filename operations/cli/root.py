"""The table of all commands, their exit codes, and `run` and `version`, which have no family.

Not for: the rules behind a command; each is in its own module.
"""

import sys
from collections.abc import Callable

import typer

from gateway import __version__, log, process
from gateway.errors import GatewayError, SettingsError
from operations.cli import (
    archive,
    audit,
    backup,
    forward,
    modality,
    mpps,
    network,
    outbox,
    quarantine,
    refusals,
    site,
    users,
    viewer,
    worklist,
)
from operations.cli.terminal import AsJson, console, print_json
from operations.site_settings import SiteSettings

app = typer.Typer(
    help="A DICOM edge gateway between breast-screening modalities and the screening programme's cloud.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the help texts below are laid out as they are meant to be read
)


def main() -> None:
    """The console script."""
    log.configure("WARNING", process="gateway")
    sys.exit(process.run(_command))


def _command() -> None:
    try:
        app()
    except SettingsError:  # 78: `process.run` knows it
        raise
    except (GatewayError, OSError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(process.EXIT_FAILED) from error


def run() -> None:
    """Run worklist, pacs and relay in the foreground, for containers and development.

    When one ends, all are stopped and the exit code is not 0. Ctrl-C or SIGTERM stops all.

    Example: GATEWAY_DATA_DIR=/tmp/gateway gateway run
    """
    settings = SiteSettings.load()
    log.configure(settings.relay.log_level, process="gateway")
    commands = {name: [sys.executable, "-m", name] for name in ("worklist", "pacs", "relay")}
    raise SystemExit(process.supervise(commands))


def version(as_json: AsJson = False) -> None:
    """Say which version this is.

    Example: gateway version
    """
    if as_json:
        print_json({"version": __version__})
    else:
        console.print(__version__)


# `gateway --help` shows the commands and then the families, each in the order of its table.
COMMANDS: dict[str, Callable[..., None]] = {
    "fsck": archive.fsck,
    "prune": archive.prune_command,
    "backup": backup.backup_command,
    "restore": backup.restore_command,
    "statistics": archive.statistics,
    "modality": modality.modality,
    "echo": network.echo,
    "send": network.send,
    "find": network.find,
    "refusals": refusals.refusals,
    "selftest": site.selftest,
    "diagnostics": site.diagnostics,
    "run": run,
    "check": site.check,
    "status": site.status,
    "version": version,
}
FAMILIES: dict[str, typer.Typer] = {
    "tls": network.tls_app,
    "quarantine": quarantine.quarantine_app,
    "forward": forward.forward_app,
    "link": network.link_app,
    "outbox": outbox.outbox_app,
    "users": users.users_app,
    "audit": audit.audit_app,
    "viewer": viewer.viewer_app,
    "worklist": worklist.worklist_app,
    "mpps": mpps.mpps_app,
}

for _name, _run in COMMANDS.items():
    app.command(_name)(_run)
for _name, _family in FAMILIES.items():
    app.add_typer(_family, name=_name)
