"""A table of violations that some machines commit, each with the answer of a good gateway.

`gateway modality --misbehave all` does each against its own site and compares. Expected and seen are words in the order
of events: statuses as PS3.7 and PS3.4 print them (`Cxxx` is any of them), how an association ended, how many instances
the archive shows. Each is over in seconds, whatever the answer.

Not for: exams (`scripted_machine`). The images are synthetic, but stored and reported to the cloud like any other.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType

from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom.sop_class import StorageCommitmentPushModelInstance

from gateway.dataset.data_sets import decode
from gateway.dicom.application import response
from gateway.dicom.dimse import CommandField, pack_command
from gateway.hops import HopFailed, Hops, Observed
from simulator.exam import steps
from simulator.exam.encoding import encoded
from simulator.modality.commitment_scu import answer_in, question
from simulator.modality.misbehaviour_kit import SYNTAX, Proof, fits, store_request, word
from simulator.modality.plan import CLASSES
from simulator.modality.raw_association import Ended, RawAssociation, Rejected
from simulator.modality.scripted_machine import COMMITMENT, WORKLIST

Deed = Callable[[Proof], list[str]]
_CREATE, _SET = CommandField.N_CREATE, CommandField.N_SET


@dataclass(frozen=True)
class Misbehaviour:
    """One row: its name, a sentence, the words of a good gateway's answers, and the function that does it."""

    name: str
    what: str
    expected: tuple[str, ...]
    deed: Deed


def show(each: Misbehaviour, proof: Proof, hops: Hops) -> None:
    """Do it, and record what was expected and seen as one hop, which failed if the two differ."""
    with suppress(HopFailed), hops.watch(each.name) as note:
        seen = each.deed(proof)
        note.detail = f"{each.what}; expected {_said(each.expected)}; seen {_said(seen)}."
        if not fits(each.expected, seen):
            raise Observed(note.detail)


def _said(words: tuple[str, ...] | list[str]) -> str:
    return ", ".join(words)


# ---- images --------------------------------------------------------------------------------------------------------


def _hang_up(proof: Proof) -> list[str]:
    image, line = proof.image(), proof.archive_line()
    line.write(proof.begin_image(line, image)[:1000])  # not even the PDU is whole
    line.hang_up()
    return _sent_again(proof, image)


def _abort(proof: Proof) -> list[str]:
    image, line = proof.image(), proof.archive_line()
    proof.begin_image(line, image)
    line.abort()
    return _sent_again(proof, image)


def _stop_sending(proof: Proof) -> list[str]:
    image, line = proof.image(), proof.archive_line()
    proof.begin_image(line, image)
    served = proof.others_served()
    line.hang_up()
    return [served, *_sent_again(proof, image)]


def _sent_again(proof: Proof, image: Dataset) -> list[str]:
    """Send an image again whose transfer broke off."""
    before = proof.visible(image)  # nothing of the first attempt may be in the archive
    return [before, proof.store(image), proof.visible(image)]


def _truncated(proof: Proof) -> list[str]:
    image = proof.image()
    return [proof.store(image, encoded(image, SYNTAX)[:-5000]), proof.visible(image)]


def _no_data_set(proof: Proof) -> list[str]:
    image = proof.image()
    return [proof.store(image, b""), proof.visible(image)]


def _wrong_class(proof: Proof) -> list[str]:
    image = proof.image(SOPClassUID=CLASSES["tomosynthesis"])
    return [proof.store(image), proof.visible(image)]


def _wrong_name(proof: Proof) -> list[str]:
    image = proof.image()
    return [proof.store(image, affected_sop_instance_uid=str(generate_uid())), proof.visible(image)]


def _wrong_context(proof: Proof) -> list[str]:
    image = proof.image()
    return [proof.store(image, affected_sop_class_uid=CLASSES["processing"]), proof.visible(image)]


def _twice(proof: Proof) -> list[str]:
    image = proof.image()
    return [proof.store(image), proof.store(image), proof.visible(image)]


def _other_content(proof: Proof) -> list[str]:
    first = proof.image()
    second = proof.image(SOPInstanceUID=first.SOPInstanceUID, InstanceNumber=77)
    answers = [proof.store(first), proof.store(second)]
    kept = {str(shown.InstanceNumber) for shown in proof.shown(first)}
    return [*answers, proof.visible(first), "first kept" if kept == {"1"} else "first not kept"]


def _wrong_side(proof: Proof) -> list[str]:
    image = proof.image(ImageLaterality="L")
    return [proof.store(image), proof.visible(image)]


def _other_patient(proof: Proof) -> list[str]:
    first, second = proof.image(), proof.image(PatientID="9990000026", PatientName="PHANTOM^OTHER")
    answers = [proof.store(first), proof.store(second)]
    as_sent = {str(shown.PatientID) for shown in proof.shown(second)} == {"9990000026"}
    return [*answers, proof.visible(second), "as sent" if as_sent else "changed"]


def _unknown_commitment(proof: Proof) -> list[str]:
    requested = question([(CLASSES["presentation"], str(generate_uid()))])
    with proof.caller.opened(proof.pacs, [(COMMITMENT, SYNTAX)]) as line:
        context = line.context(COMMITMENT)
        instance = str(StorageCommitmentPushModelInstance)
        request = line.request(CommandField.N_ACTION, COMMITMENT, has_data=True, instance=instance)
        answers = [word(line.ask(context, request, encoded(requested, SYNTAX)))]
        # The association stays open, so the archive reports on it and opens none of its own.
        try:
            report, data = line.answer()
        except Ended as ended:
            return [*answers, ended.how]
        line.send(context, response(report, 0x0000))
        failed = answer_in(decode(data, SYNTAX)).failed.values()
        return [*answers, *(f"failed {reason:04X}" for reason in failed)]


# ---- associations --------------------------------------------------------------------------------------------------


def _wrong_title(proof: Proof) -> list[str]:
    stranger = replace(proof.pacs, ae_title="NOT_THE_TITLE")
    try:
        proof.caller.open(stranger, [(CLASSES["presentation"], SYNTAX)]).release()
    except Rejected as rejected:
        return [f"rejected {rejected.source}/{rejected.reason}"]
    return ["accepted"]


def _garbage(proof: Proof) -> list[str]:
    return _broken_with(proof, b"\xff" * 64)


def _huge_length(proof: Proof) -> list[str]:
    # A release request of 4 GB: a gateway that trusts the length allocates it, or waits for it.
    return _broken_with(proof, b"\x05\x00\xff\xff\xff\xf0" + bytes(64))


def _unannounced(proof: Proof) -> list[str]:
    with_header = b"\x00\x00\x00\x0a\x01\x02" + bytes(8)  # a whole data set in context 1 (PS3.8 9.3.5.1)
    return _broken_with(proof, b"\x04\x00" + len(with_header).to_bytes(4, "big") + with_header)


def _interrupted(proof: Proof) -> list[str]:
    image, line = proof.image(), proof.archive_line()
    proof.begin_image(line, image)
    command = pack_command(store_request(line, image))
    how = _end_of(line, line.packed(line.context(CLASSES["presentation"]), command, is_command=True))
    return [how, proof.visible(image)]


def _broken_with(proof: Proof, data: bytes) -> list[str]:
    how = _end_of(proof.archive_line(), data)
    return [how, proof.others_served()]


def _end_of(line: RawAssociation, data: bytes) -> str:
    """Send the bytes and give how the peer ends the association."""
    try:
        line.write(data)
        return line.ending()
    finally:
        line.hang_up()


# ---- worklist and steps --------------------------------------------------------------------------------------------


def _nonsense_query(proof: Proof) -> list[str]:
    identifier = steps.query({"ScheduledProcedureStepStartDate": "yesterday"})
    with proof.caller.opened(proof.worklist, [(WORKLIST, SYNTAX)]) as line:
        answers = line.find(line.context(WORKLIST), encoded(identifier, SYNTAX))
        return [word(answer) for answer, _ in answers]


def _created_finished(proof: Proof) -> list[str]:
    created = proof.created()
    created.PerformedProcedureStepStatus = "COMPLETED"
    return proof.says((_CREATE, str(generate_uid()), created))


def _created_without_study(proof: Proof) -> list[str]:
    created = proof.created()
    del created.ScheduledStepAttributesSequence[0].StudyInstanceUID
    return proof.says((_CREATE, str(generate_uid()), created))


def _created_again(proof: Proof) -> list[str]:
    uid, other = str(generate_uid()), proof.created()
    other.PerformedProcedureStepID = "OTHER"
    return proof.says(
        (_CREATE, uid, proof.created()), (_CREATE, uid, other), (_SET, uid, proof.finished("DISCONTINUED"))
    )


def _set_unknown(proof: Proof) -> list[str]:
    return proof.says((_SET, str(generate_uid()), proof.finished("COMPLETED")))


def _set_patient(proof: Proof) -> list[str]:
    uid, change = str(generate_uid()), Dataset()
    change.PatientID = "9990000026"
    return proof.says((_CREATE, uid, proof.created()), (_SET, uid, change), (_SET, uid, proof.finished("DISCONTINUED")))


def _ended_without_series(proof: Proof) -> list[str]:
    uid, final = str(generate_uid()), proof.finished("COMPLETED")
    del final.PerformedSeriesSequence
    return proof.says((_CREATE, uid, proof.created()), (_SET, uid, final), (_SET, uid, proof.finished("DISCONTINUED")))


def _ended_twice(proof: Proof) -> list[str]:
    uid, final = str(generate_uid()), proof.finished("DISCONTINUED")
    return proof.says((_CREATE, uid, proof.created()), (_SET, uid, final), (_SET, uid, proof.finished("COMPLETED")))


# Statuses: A9xx, the data set does not match the SOP class; Cxxx, it cannot be understood (PS3.4 B.2.3). 0105 no such
# attribute, 0106 invalid value, 0110 processing failure, 0111 duplicate instance, 0112 no such instance, 0120 missing
# attribute, 0121 missing value (PS3.7 C).
_AGAIN = ("0 visible", "0000", "1 visible")
_ENDED = "aborted or closed"
_MISSING = "0120 or 0121"

_ROWS = (
    Misbehaviour("hang-up", "hangs up in the middle of an image, then sends it again", _AGAIN, _hang_up),
    Misbehaviour("abort", "aborts in the middle of an image, then sends it again", _AGAIN, _abort),
    Misbehaviour(
        "stop-sending",
        "falls silent in the middle of an image, hangs up, then sends it again",
        ("others served", *_AGAIN),
        _stop_sending,
    ),
    Misbehaviour("truncated", "sends an image whose last bytes are missing", ("Cxxx", "0 visible"), _truncated),
    Misbehaviour("no-data-set", "announces an image and sends nothing", ("Cxxx or A9xx", "0 visible"), _no_data_set),
    Misbehaviour("wrong-class", "sends an image of another class than announced", ("A9xx", "0 visible"), _wrong_class),
    Misbehaviour(
        "wrong-name", "sends an image of another SOP Instance UID than announced", ("A9xx", "0 visible"), _wrong_name
    ),
    Misbehaviour("wrong-context", "announces a class in the context of another", ("A9xx", "0 visible"), _wrong_context),
    Misbehaviour("twice", "sends an image twice", ("0000", "0000", "1 visible"), _twice),
    Misbehaviour(
        "other-content",
        "sends another image under a SOP Instance UID that it used before",
        ("0000", "Cxxx", "1 visible", "first kept"),
        _other_content,
    ),
    # An archive does not judge: a wrong side and another patient are kept as they came, for people to see on the board
    # and in the cloud.
    Misbehaviour("wrong-side", "sends a right breast that is labelled left", ("0000", "1 visible"), _wrong_side),
    Misbehaviour(
        "other-patient",
        "sends an image of another patient in the same study and accession number",
        ("0000", "0000", "1 visible", "as sent"),
        _other_patient,
    ),
    Misbehaviour(
        "unknown-commitment",
        "asks for commitment of an image it never sent",
        ("0000", "failed 0112"),
        _unknown_commitment,
    ),
    # 1/7: called AE title not recognized (PS3.8 Table 9-21).
    Misbehaviour("wrong-title", "calls the archive by another AE title", ("rejected 1/7",), _wrong_title),
    Misbehaviour("garbage", "sends bytes that are no PDU", (_ENDED, "others served"), _garbage),
    Misbehaviour("huge-length", "states a PDU of 4 GB", (_ENDED, "others served"), _huge_length),
    Misbehaviour("unannounced", "sends a data set without a command", (_ENDED, "others served"), _unannounced),
    Misbehaviour("interrupted", "sends a command in the middle of an image", (_ENDED, "0 visible"), _interrupted),
    Misbehaviour("nonsense-query", "asks for the date 'yesterday'", ("A9xx or Cxxx",), _nonsense_query),
    Misbehaviour("created-finished", "begins a step that is completed", ("0106",), _created_finished),
    Misbehaviour("created-without-study", "begins a step of no study", (_MISSING,), _created_without_study),
    # The last 0000 is the end of the first step: it still is as it was created.
    Misbehaviour("created-again", "begins another step under the same UID", ("0000", "0111", "0000"), _created_again),
    Misbehaviour("set-unknown", "ends a step that was never begun", ("0112",), _set_unknown),
    Misbehaviour("set-patient", "changes the patient of a step", ("0000", "0105 or 0106", "0000"), _set_patient),
    Misbehaviour(
        "ended-without-series", "completes a step without a series", ("0000", _MISSING, "0000"), _ended_without_series
    ),
    Misbehaviour("ended-twice", "completes a step that was discontinued", ("0000", "0000", "0110"), _ended_twice),
)

TABLE: Mapping[str, Misbehaviour] = MappingProxyType({row.name: row for row in _ROWS})
"""Every misbehaviour by its name."""
