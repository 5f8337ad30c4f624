"""Scripts of exams: read as a whole, refused with every mistake named, unfolded into pictures before they are made."""

import json
from pathlib import Path
from typing import get_args

import pytest

from simulator.modality import script as script_module
from simulator.modality.plan import Plan, plan
from simulator.modality.script import Script, ScriptError, read

EXAMPLES = sorted((Path(__file__).parents[3] / "docs" / "exams").glob("*.json"))


def script(*acts: dict[str, object], **machine: object) -> Script:
    return Script.model_validate_json(json.dumps({"machine": machine, "acts": acts}))


def pictures(planned: Plan) -> list[str]:
    """Each picture in short: view, kind and what is special about it, its number, how it is encoded."""
    return [
        " ".join(
            [shot.view, shot.kind, *shot.modifiers]
            + ["implant"] * shot.implant
            + ["partial"] * shot.partial
            + [str(shot.number), shot.transfer_syntax_uid.removeprefix("1.2.840.10008.1.2")]
        )
        for each in planned.planned
        for shot in each.shots
    ]


def mistakes(folder: Path, text: str) -> str:
    path = folder / "exam.json"
    path.write_text(text)
    with pytest.raises(ScriptError) as raised:
        read(path)
    return str(raised.value).replace(str(path), "exam.json")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_can_be_followed(path: Path) -> None:
    assert plan(read(path)).contexts


def test_the_examples_show_every_act_and_every_manner() -> None:
    texts = [path.read_text() for path in EXAMPLES]
    shown = {key for text in texts for key in json.loads(text).get("machine", {})}
    acts = {act["do"] for text in texts for act in json.loads(text)["acts"]}
    assert acts == {"query", "begin", "expose", "report", "send", "change", "end", "commit", "pause"}
    assert shown == set(script_module.Behaviour.model_fields)


def test_every_word_of_a_script_is_documented() -> None:
    documented = (EXAMPLES[0].parent / "README.md").read_text()
    written = [script_module.Behaviour, *get_args(get_args(script_module.Act)[0])]
    words = {word for model in written for word in model.model_fields}
    assert sorted(word for word in words if f"`{word}`" not in documented) == []


def test_every_mistake_is_named_with_its_place(tmp_path: Path) -> None:
    text = json.dumps(
        {
            "machine": {"names": "?", "colour": "blue", "ae_title": "LONGER_THAN_SIXTEEN", "character_set": "EBCDIC"},
            "acts": [
                {"do": "expose", "views": ["RCC", "TOP"], "transfer_syntax": "htj2k"},
                {"do": "jump"},
                {"do": "query", "keys": {"PatientsName": "A*"}},
                {"do": "pause"},
                {"do": "commit", "answer": "new association"},
                {"do": "expose", "modifiers": ["spot"], "partial": True},
                {"do": "expose", "kind": "tomosynthesis", "implant": True},
                {"do": "end", "reason": "lunch"},
            ],
        }
    )
    assert mistakes(tmp_path, text).splitlines() == [
        "exam.json is not a script of an exam:",
        "  machine ae_title: string should have at most 16 characters.",
        "  machine character_set: EBCDIC is not a character set such as ISO_IR 100 or ISO 2022 IR 87.",
        "  machine names: input should be '' or '*'.",
        "  machine colour: is not known here.",
        "  act 1 expose, views 2: is not a view; those are RCC, RMLO, RML, RLM, RXCCL, LCC, LMLO, LML, LLM, LXCCL.",
        "  act 1 expose, transfer_syntax: is not a transfer syntax that can be made here; those are explicit, "
        "implicit, deflated, jpeg-lossless, jpeg-lossless-p14, jpeg-ls, jpeg-2000, rle.",
        "  act 2: do has to be one of query, begin, expose, report, send, change, end, commit, pause.",
        "  act 3 query, keys PatientsName: is not a DICOM keyword such as PatientID.",
        "  act 4 pause, seconds: is missing.",
        "  act 5 commit: to be called back, the machine needs a port.",
        "  act 6 expose: a spot or magnified view is not called partial (PS3.3 C.8.11.7).",
        "  act 7 expose: modifiers, implant and partial are not made for tomosynthesis.",
        "  act 8 end, reason: is not a reason; those are 110500, 110501, 110502, 110505, 110507, 110512, 110513, "
        "110514, 110515.",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "exam.json is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)."),
        ("[]", "exam.json is not a script of an exam:\n  the file: input should be an object."),
        (
            '{"acts": []}',
            "exam.json is not a script of an exam:\n  acts: list should have at least 1 item after validation, not 0.",
        ),
        ("{}", "exam.json is not a script of an exam:\n  acts: is missing."),
    ],
)
def test_what_is_no_script_is_said(tmp_path: Path, text: str, said: str) -> None:
    assert mistakes(tmp_path, text) == said


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match=r"nowhere\.json cannot be read: No such file or directory\."):
        read(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (
            {"do": "expose"},
            ["RCC presentation 1 .1", "LCC presentation 1 .1", "RMLO presentation 1 .1", "LMLO presentation 1 .1"],
        ),
        ({"do": "expose", "views": ["LCC"], "times": 2}, ["LCC presentation 1 .1", "LCC presentation 2 .1"]),
        ({"do": "expose", "views": ["LCC"], "kind": "pair"}, ["LCC processing 1 .1", "LCC presentation 1 .1"]),
        (
            {"do": "expose", "views": ["LCC"], "implant": True, "modifiers": ["implant displaced"]},
            ["LCC presentation implant displaced implant 1 .1"],
        ),
        (
            {"do": "expose", "views": ["RMLO"], "partial": True, "transfer_syntax": "jpeg-ls"},
            ["RMLO presentation partial 1 .4.80"],
        ),
        ({"do": "expose", "views": ["RMLO"], "kind": "tomosynthesis"}, ["RMLO tomosynthesis 1 .1"]),
        ({"do": "expose", "views": ["RMLO"], "kind": "synthetic"}, ["RMLO synthetic 1 .1"]),
    ],
)
def test_an_exposure_unfolds_into_its_pictures(act: dict[str, object], expected: list[str]) -> None:
    assert pictures(plan(script({"do": "begin", "scheduled": False}, act))) == expected


def test_a_repeat_is_numbered_over_the_whole_exam() -> None:
    again = {"do": "expose", "views": ["RCC"]}
    assert pictures(plan(script({"do": "query"}, again, {**again, "modifiers": ["spot"]}, again))) == [
        "RCC presentation 1 .1",
        "RCC presentation spot 1 .1",
        "RCC presentation 2 .1",
    ]


def test_a_machine_that_knows_implicit_alone_sends_nothing_else() -> None:
    act = {"do": "expose", "views": ["RCC"], "transfer_syntax": "jpeg-ls"}
    planned = plan(script({"do": "query"}, act, implicit_only=True, transfer_syntax="jpeg-2000"))
    assert planned.contexts == (("1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.1.2"),)


@pytest.mark.parametrize(
    ("acts", "trouble"),
    [
        (["begin"], "Act 1 (begin) cannot be done there: no query before it finds an item; query, or say that it is "
                    "not scheduled."),
        (["expose"], "Act 1 (expose) cannot be done there: there is neither an item nor a step that its images would "
                     "belong to."),
        (["query", "change"], "Act 2 (change) cannot be done there: no step is in progress."),
        (["query", "begin", "end", "end"], "Act 4 (end) cannot be done there: no step is in progress."),
        (["query", "begin", "report"], "Act 3 (report) cannot be done there: no images were sent that it could be "
                                       "about."),
        (["query", "expose", "send"], "Act 3 (send) cannot be done there: no images were held back."),
        (["query", "begin", "end", "commit"], "Act 4 (commit) cannot be done there: no images were sent since."),
        (["query", "expose", "commit", "commit"], "Act 4 (commit) cannot be done there: no images were sent since."),
    ],
)  # fmt: skip
def test_an_act_that_cannot_follow_is_refused_before_anything_is_sent(acts: list[str], trouble: str) -> None:
    with pytest.raises(ScriptError) as raised:
        plan(script(*({"do": act} for act in acts)))
    assert str(raised.value) == trouble


def test_a_query_value_that_its_character_set_cannot_hold_is_refused() -> None:
    with pytest.raises(ScriptError, match=r"^Act 1 \(query\) .*: PatientName cannot be written in ISO_IR 100\.$"):
        plan(script({"do": "query", "keys": {"PatientName": "山田*"}}, character_set="ISO_IR 100"))
