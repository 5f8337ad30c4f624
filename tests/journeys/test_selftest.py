"""A site tests itself, for its engineer and for the cloud, and nothing is left but what the cloud was told."""

import json
import subprocess
import sys
from contextlib import closing

from pacs import Archive
from simulator.site import Site, wait_until
from tests.journeys.steps import now
from worklist import Worklist

IMAGE = "study.image_received"


def gateway(site: Site, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "gateway", *arguments]
    return subprocess.run(
        command, cwd=site.folder, env=site.environment(), capture_output=True, text=True, timeout=100, check=False
    )


def traces(site: Site) -> dict[str, object]:
    """What there is in worklist and archive, rows and files."""
    with (
        closing(Worklist.attach(site.data / "worklist.db")) as worklist,
        closing(Archive.attach(site.data / "pacs.db", site.data / "instances")) as archive,
    ):
        with worklist.read() as conn:
            tables = ("items", "actions", "steps", "performed_items", "performed_instances")
            rows = {name: conn.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
        files = list((site.data / "instances").rglob("*.dcm"))
        return {**rows, **archive.statistics(), "files": len(files)}


def events(site: Site, message_type: str) -> list[dict[str, object]]:
    wait_until(lambda: len(site.control.events(message_type)) > 0, what=message_type)
    return site.control.events(message_type)


def test_a_test_passes_every_hop_or_names_the_one_that_failed_and_leaves_no_trace(site: Site) -> None:
    before = traces(site)
    done = gateway(site, "selftest", "--json")
    hops = json.loads(done.stdout)
    assert (done.returncode, [hop["name"] for hop in hops if hop["state"] == "failed"]) == (0, [])
    assert [hop["name"] for hop in hops][-3:] == [
        "viewer: search and retrieve",
        "cloud: confirms all events",
        "cleaned up",
    ]
    assert traces(site) == before
    told = events(site, IMAGE)
    assert len(told) == 4
    assert {str(event["parameters"]["study"]["accession_number"])[:8] for event in told} == {"SELFTEST"}
    site.stop("pacs")
    done = gateway(site, "selftest", "--json")
    failed = [hop["name"] for hop in json.loads(done.stdout) if hop["state"] == "failed"]
    assert (done.returncode, failed) == (1, ["modality: R CC stored"])
    assert traces(site) == before


def test_the_cloud_has_a_site_test_itself_once_and_gets_a_bundle_by_reference(site: Site) -> None:
    wait_until(lambda: site.control.listeners() > 0, what="The relay")
    action = {"action_type": "gateway.selftest", "action_id": "T-1"}
    assert [site.control.send(action) for _ in range(2)] == [{"status": "processed", "action_id": "T-1"}] * 2
    [completed] = events(site, "gateway.selftest_completed")
    assert (completed["parameters"]["request_id"], completed["parameters"]["passed"]) == ("T-1", True)
    assert "modality: step begun" in [hop["name"] for hop in completed["parameters"]["hops"]]
    site.kill("relay")
    site.start("relay")
    wait_until(lambda: site.control.listeners() > 0, what="The relay")
    assert site.control.send(action) == {"status": "processed", "action_id": "T-1"}
    forced = site.control.send({**action, "parameters": {"force": True}})
    assert (forced["status"], forced["code"]) == ("error", "conflict")
    assert len(site.control.events(IMAGE)) == 4
    assert site.control.send({"action_type": "gateway.diagnostics", "action_id": "D-1"})["status"] == "processed"
    [completed] = events(site, "gateway.diagnostics_completed")
    facts = completed["parameters"]
    bundle = site.data / "diagnostics" / str(facts["file"])
    assert (facts["reason"], bundle.stat().st_size) == ("", facts["size_bytes"])


def test_a_test_item_is_performed_by_the_emulator(site: Site) -> None:
    from simulator.journey import create_item

    wait_until(lambda: site.control.listeners() > 0, what="The relay")
    action = {**create_item(now=now()), "action_type": "worklist.create_test_item"}
    assert site.control.send(action) == {"status": "created", "action_id": action["action_id"]}
    [performed] = events(site, "worklist.test_item_performed")
    assert performed["parameters"]["passed"] is True
    wait_until(lambda: len(site.control.events(IMAGE)) == 4, what="The images' events")
    refused = gateway(site, "selftest")  # images came in a moment ago
    assert (refused.returncode, "A clinic is under way" in refused.stderr) == (1, True)
