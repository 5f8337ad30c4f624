"""The machine that follows scripts, and misbehaves, against the real processes of one site."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.hops import Hops
from gateway.remote_ae import Peer
from operations import worklist_file
from simulator.journey import create_item
from simulator.modality.misbehaviour import TABLE
from simulator.modality.plan import Plan, plan
from simulator.modality.raw_association import Dialer
from simulator.modality.script import Script
from simulator.modality.scripted_machine import Machine
from simulator.site import AE_TITLE, Site
from tests.journeys.steps import COLUMNS, ROWS, now, personal, qido
from worklist import Worklist

EXAMPLES = Path(__file__).parents[2] / "docs" / "exams"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all exams of this file, each with an item of its own; no exam minds the others' images."""
    with Site(tmp_path_factory.mktemp("site"), settings={"RELAY_DESTINATION": "none"}) as site:
        site.start("worklist", "pacs")
        site.start("relay")
        yield site
        assert list(personal(site)) == []


def gateway(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True, text=True, timeout=90, check=False, cwd=site.folder, env=site.environment(),
    )  # fmt: skip


def schedule(site: Site) -> str:
    """Put an item on the list, for now; gives its accession number."""
    accession_number, file = f"T{uuid.uuid4().hex[:10].upper()}", site.folder / "item.json"
    match create_item(now=now()):
        case {"parameters": {"worklist_item": dict(item)}}:
            file.write_text(json.dumps(item | {"accession_number": accession_number}))
    [each] = worklist_file.read(file)
    with closing(Worklist.attach(site.data / "worklist.db")) as worklist:
        worklist.schedule(each.item, action_id=each.action_id, content_hash=each.content_hash, now=datetime.now(UTC))
    return accession_number


def small(name: str, accession_number: str) -> Plan:
    """An example of the documentation with small pictures, of one item."""
    content = json.loads((EXAMPLES / name).read_text())
    for act in content["acts"]:
        if act["do"] == "expose":
            act |= {"rows": ROWS, "columns": COLUMNS}
        if act["do"] == "query":
            act["keys"] = {"AccessionNumber": accession_number}
        if act["do"] == "pause":
            act["seconds"] = 0
    return plan(Script.model_validate_json(json.dumps(content)))


def follow(site: Site, planned: Plan, **changes: str) -> list[str]:
    """Follow a plan; gives its acts as they were seen to work."""
    worklist, pacs = (
        Peer(title, "127.0.0.1", site.ports[name])
        for title, name in (("SCREENING_MWL", "worklist"), ("SCREENING_PACS", "pacs"))
    )
    behaviour = planned.machine.model_copy(update=changes)
    caller = Dialer(behaviour.ae_title or AE_TITLE, seconds=20)
    hops = Hops()
    Machine(behaviour, caller, worklist=worklist, pacs=pacs, clock=now).run(replace(planned, machine=behaviour), hops)
    return [hop.name for hop in hops.seen if hop.state == "ok"]


EXAMS = {
    "screening.json": ["worklist query", "step begun", "R CC stored", "L CC stored", "R MLO stored", "L MLO stored",
                       "L MLO stored", "step ended", "storage committed"],
    "implants.json": ["worklist query", "step begun", "R CC stored", "L CC stored", "R MLO stored", "L MLO stored",
                      "step changed", "R CC stored", "L CC stored", "R MLO stored", "L MLO stored", "L MLO stored",
                      "step ended", "storage committed"],
    "tomosynthesis.json": ["worklist query", "step begun", "L CC tomosynthesis stored", "L MLO tomosynthesis stored",
                           "L CC synthetic 2D stored", "L MLO synthetic 2D stored", "L CC raw stored", "L CC stored",
                           "L CC stored", "dose report stored", "CAD report stored", "step ended", "storage committed"],
    "late-images.json": ["worklist query", "step begun", "R CC stored", "step ended", "step begun", "step ended",
                         "pause", "R CC stored", "L CC stored", "R MLO stored", "L MLO stored", "storage committed",
                         "step begun", "L CC stored", "step ended"],
    "oddities.json": ["worklist query", "worklist query", "step begun", "R CC stored", "L CC stored", "step ended",
                      "storage committed"],
}  # fmt: skip


@pytest.mark.parametrize("name", EXAMS)
def test_an_example_is_followed_to_its_end_and_found(site: Site, name: str) -> None:
    accession_number = schedule(site)
    assert follow(site, small(name, accession_number)) == EXAMS[name]
    of_the_item = [hop for hop in EXAMS[name] if hop.endswith("stored")]
    of_the_item = of_the_item[:-1] if name == "late-images.json" else of_the_item  # the last is on no worklist
    assert len(qido(site, f"/instances?AccessionNumber={accession_number}")) == len(of_the_item)


@pytest.mark.parametrize("farewell", ["abort", "close", "stay"])
@pytest.mark.parametrize("associations", ["each", "one"])
def test_however_an_association_ends_what_was_answered_stands(site: Site, farewell: str, associations: str) -> None:
    accession_number = schedule(site)
    acts = [{"do": "query", "keys": {"AccessionNumber": accession_number}}, {"do": "begin"},
            {"do": "expose", "views": ["RCC"], "rows": ROWS, "columns": COLUMNS}, {"do": "end"},
            {"do": "commit"}]  # fmt: skip
    planned = plan(Script.model_validate_json(json.dumps({"acts": acts})))
    follow(site, planned, farewell=farewell, associations=associations)
    assert len(qido(site, f"/instances?AccessionNumber={accession_number}")) == 1


def test_a_machine_that_hangs_up_is_called_back_about_its_commitment(site: Site) -> None:
    acts = [{"do": "begin", "scheduled": False}, {"do": "expose", "views": ["RCC"], "rows": ROWS, "columns": COLUMNS},
            {"do": "commit", "answer": "new association", "port": site.ports["modality"]}]  # fmt: skip
    planned = plan(Script.model_validate_json(json.dumps({"acts": acts})))
    assert follow(site, planned) == ["step begun", "R CC stored", "storage committed"]


def test_every_misbehaviour_is_answered_as_it_has_to_be(site: Site) -> None:
    done = gateway(site, "modality", "--misbehave", "all", "--json")
    facts = json.loads(done.stdout)
    assert [(fact["name"], fact["detail"]) for fact in facts if fact["state"] != "ok"] == []
    assert ([fact["name"] for fact in facts], done.returncode) == (list(TABLE), 0)


def test_a_machine_may_misbehave_within_an_item(site: Site) -> None:
    accession_number = schedule(site)
    done = gateway(site, "modality", accession_number, "--misbehave", "wrong-side,other-patient")
    assert (done.returncode, done.stdout.count("ok ")) == (0, 2), done.stdout + done.stderr
    assert len(qido(site, f"/instances?AccessionNumber={accession_number}")) == 3


def test_an_exam_of_the_command_line_is_done(site: Site) -> None:
    accession_number = schedule(site)
    done = gateway(site, "modality", accession_number, "--views", "rcc", "--json")
    assert [fact["name"] for fact in json.loads(done.stdout)] == [
        "worklist query", "step begun", "R CC stored", "step ended", "storage committed",
    ]  # fmt: skip


def test_a_script_is_followed_for_the_item_that_is_given(site: Site) -> None:
    other, accession_number = schedule(site), schedule(site)
    script = site.folder / "exam.json"
    script.write_text('{"acts": [{"do": "query", "expect": 1}, {"do": "begin"}]}')
    done = gateway(site, "modality", accession_number, "--script", str(script))
    assert done.returncode == 0, done.stdout + done.stderr
    listed = gateway(site, "worklist", "list", "--date", "all", "--json")
    states = {each["accession_number"]: each["state"] for each in json.loads(listed.stdout)}
    assert (states[other], states[accession_number]) == ("scheduled", "in_progress")


def test_an_exam_that_is_not_answered_as_it_has_to_be_is_not_done(site: Site) -> None:
    script = site.folder / "exam.json"
    script.write_text('{"acts": [{"do": "query", "keys": {"AccessionNumber": "NOBODY"}}, {"do": "begin"}]}')
    done = gateway(site, "modality", "--script", str(script))
    assert (done.returncode, "failed  worklist query" in done.stdout) == (1, True), done.stdout + done.stderr


def test_a_script_that_cannot_be_followed_is_not_begun(site: Site) -> None:
    script = site.folder / "exam.json"
    script.write_text('{"acts": [{"do": "end"}]}')
    done = gateway(site, "modality", "--script", str(script))
    assert (done.returncode, done.stdout, done.stderr) == (
        1, "", "Act 1 (end) cannot be done there: no step is in progress.\n",
    )  # fmt: skip
