"""A machine that follows a plan act by act, with the oddities of real machines, and checks each response.

Each act is a hop. The first one that is not answered as expected ends the exam.

Not for: the content of an exam (`script`, `plan`), nor for violations of the standard (`misbehaviour`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from gateway.dataset.data_sets import decode
from gateway.dicom.application import response
from gateway.dicom.dimse import Command, CommandField
from gateway.dicom.requestor import PENDING, described
from gateway.hops import Hops, Observed
from gateway.remote_ae import Peer
from simulator.exam import steps, structured_reports
from simulator.exam.compression import compress
from simulator.exam.encoding import SYNTAXES, Style, encoded
from simulator.exam.exam import Exam, derived_uid
from simulator.exam.steps import Sent, sent_of
from simulator.modality.associations import Associations
from simulator.modality.commitment_scu import Answer, Reports, answer_in, question, shortfall
from simulator.modality.pictures import picture
from simulator.modality.plan import Plan, Planned, Shot
from simulator.modality.raw_association import Dialer, Ended, RawAssociation
from simulator.modality.script import Begin, Behaviour, Commit, End, Expose, Pause, Query, Report, Send, StepChange

WORKLIST = str(ModalityWorklistInformationFind)
STEPS = str(ModalityPerformedProcedureStep)
COMMITMENT = str(StorageCommitmentPushModel)
SUCCESS, CANCELLED, DUPLICATE, NO_LONGER = 0x0000, 0xFE00, 0x0111, 0x0110
WARNINGS = range(0xB000, 0xC000)
"""C-STORE: stored, with a remark (PS3.4 B.2.3)."""


@dataclass
class _Now:
    """The state of the exam: the matches, the step in progress, and its images."""

    items: list[Dataset] = field(default_factory=list)
    subject: Dataset | None = None
    """The item that images belong to."""
    step: str = ""
    """SOP Instance UID of the step in progress."""
    run: str = ""
    """Goes into the UIDs of instances, so that the same script makes others each time."""
    begun: int = 0
    made: list[Sent] = field(default_factory=list)
    """Of the step in progress."""
    held: list[Dataset] = field(default_factory=list)
    unasked: list[Sent] = field(default_factory=list)
    """Sent, and no commitment requested yet."""


class Machine:
    """One machine; `run` is an exam. `caller` opens its associations, `behaviour` has its oddities."""

    def __init__(
        self,
        behaviour: Behaviour,
        caller: Dialer,
        *,
        worklist: Peer,
        pacs: Peer,
        clock: Callable[[], datetime],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`clock` gives the machine's wall time."""
        self.behaviour = behaviour
        self.caller = replace(caller, max_pdu_bytes=behaviour.max_pdu_bytes, split_writes=behaviour.split_writes)
        self.worklist, self.pacs = worklist, pacs
        self._clock, self._sleep = clock, sleep
        self._style = Style(
            behaviour.uid_padding, behaviour.group_lengths, behaviour.undefined_lengths, behaviour.sparse
        )
        self._station = behaviour.station or caller.ae_title
        self._stored: Sequence[tuple[str, str]] = ()
        self._associations = Associations(behaviour, self.caller)
        self._now = _Now()

    def run(self, plan: Plan, hops: Hops) -> None:
        """Do everything that is planned. Raises HopFailed at the first act that was not answered as it has to be."""
        self._now, self._stored = _Now(run=str(generate_uid())), plan.contexts
        try:
            for planned in plan.planned:
                self._perform(planned, hops)
        except BaseException:
            self._associations.abort()
            raise
        self._associations.close()

    def _perform(self, planned: Planned, hops: Hops) -> None:
        """One act is one hop; of an exposure, each picture."""
        match planned.act:
            case Expose(hold=hold):
                for shot in planned.shots:
                    self._expose(shot, hops, hold=hold)
            case Report(kind=kind):
                self._store_watched(self._document(kind), hops)
            case Send():
                held, self._now.held = self._now.held, []
                for image in held:
                    self._store_watched(image, hops)
            case act:
                with hops.watch(_NAMES[act.do]) as note:
                    note.detail = self._message(act)

    def _message(self, act: Query | Begin | StepChange | End | Commit | Pause) -> str:
        match act:
            case Query():
                return self._query(act)
            case Begin():
                return self._begin(act)
            case StepChange():
                return self._set("N-SET without a status", steps.changed(self._now.made, operator=self._station))
            case End():
                return self._end(act)
            case Commit():
                return self._commit(act)
            case Pause():
                self._sleep(act.seconds)
                return f"{act.seconds:g} s."

    # ---- worklist and steps ----------------------------------------------------------------------------------------

    def _query(self, act: Query) -> str:
        keys = dict(act.keys)
        if self.behaviour.station:
            keys.setdefault("ScheduledStationAETitle", self.behaviour.station)
        character_set = self.behaviour.character_set.split("\\")
        identifier = steps.query(keys, form=act.sps, names=self.behaviour.names, character_set=character_set)
        items, status = [], SUCCESS
        with self._associations.opened(self.worklist, self._worklist_kinds()) as line:
            context = line.context(WORKLIST)
            # Never sparse: an attribute that is left out of an identifier is no return key.
            data = encoded(identifier, context.transfer_syntax, replace(self._style, sparse=False))
            for answer, found in line.find(context, data, cancel_after=act.cancel_after):
                status = answer.status or SUCCESS
                if status in PENDING:
                    items.append(decode(found, context.transfer_syntax))
                else:
                    # After C-CANCEL success is right, too: the last match may have left before it came.
                    _expect("C-FIND on the worklist", answer, (SUCCESS, CANCELLED) if act.cancel_after else (SUCCESS,))
        _expect_found(len(items), act)
        self._now.items, self._now.subject = items, items[0] if items else None
        first = f", the first has accession number {items[0].get('AccessionNumber')}" if items else ""
        return f"{len(items)} found{first}{', then cancelled' if status == CANCELLED else ''}."

    def _begin(self, act: Begin) -> str:
        items = (
            self._now.items[: act.items]
            if act.scheduled
            else [steps.unscheduled(accession_number=act.accession_number)]
        )
        if act.scheduled and len(items) < act.items:
            raise Observed(f"{len(items)} items were found; the step is for {act.items}.")
        if len({item.PatientID for item in items}) > 1:
            raise Observed("The items that were found are of more than one participant; let the query ask for one.")
        now = self._now
        now.begun, now.subject, now.made = now.begun + 1, items[0], []
        # Of the step, so that a further step of the same item makes instances of its own.
        now.step = now.run = str(generate_uid())
        created = steps.created(
            items,
            step_id=f"STEP{now.begun}",
            station=self._station,
            now=self._clock(),
            character_set=self.behaviour.character_set.split("\\"),
        )
        self._normalized(CommandField.N_CREATE, "N-CREATE of the step", created)
        if self.behaviour.creates_twice:  # the standard wants 0111; that an identical repeat succeeds is a local choice
            self._normalized(CommandField.N_CREATE, "The repeated N-CREATE", created, (SUCCESS, DUPLICATE))
        return f"N-CREATE of {now.step}{', twice' if self.behaviour.creates_twice else ''}."

    def _end(self, act: End) -> str:
        final = steps.finished(
            act.status,
            self._now.made if act.names_images else [],
            now=self._clock(),
            operator=self._station,
            reason=act.reason if act.status == "DISCONTINUED" else "",
        )
        self._set(f"N-SET {act.status}", final)
        if self.behaviour.ends_twice:
            # A step in its final state is no longer updated (PS3.4 F.7.2.2.4).
            self._normalized(CommandField.N_SET, f"The repeated N-SET {act.status}", final, (NO_LONGER,))
        self._now.step = ""
        images = f"{len(self._now.made)} images" if act.names_images else "no word about images"
        return f"N-SET {act.status} with {images}{', twice' if self.behaviour.ends_twice else ''}."

    def _set(self, what: str, attributes: Dataset) -> str:
        self._normalized(CommandField.N_SET, what, attributes)
        return f"{what}."

    def _normalized(
        self, command: CommandField, what: str, attributes: Dataset, allowed: Sequence[int] = (SUCCESS,)
    ) -> None:
        with self._associations.opened(self.worklist, self._worklist_kinds()) as line:
            context = line.context(STEPS)
            request = line.request(command, STEPS, has_data=True, instance=self._now.step)
            _expect(
                what, line.ask(context, request, encoded(attributes, context.transfer_syntax, self._style)), allowed
            )

    # ---- images ----------------------------------------------------------------------------------------------------

    def _expose(self, shot: Shot, hops: Hops, *, hold: bool) -> None:
        image = self._picture(shot)
        if hold:
            self._now.held.append(image)
        else:
            self._store_watched(image, hops)

    def _picture(self, shot: Shot) -> Dataset:
        return self._of_this_exam(compress(picture(shot, self._exam()), shot.transfer_syntax_uid))

    def _document(self, kind: str) -> Dataset:
        made = structured_reports.report(kind, self._exam(), self._now.made)
        return self._of_this_exam(compress(made, self._message_syntax))

    def _exam(self) -> Exam:
        now = self._now
        assert now.subject is not None  # the plan refuses an exposure without item or step
        return steps.exam_of(now.subject, station=self._station, now=self._clock(), mpps_instance_uid=now.step)

    def _of_this_exam(self, made: Dataset) -> Dataset:
        """Give an instance UIDs of this exam, and the machine's character set."""
        made.SpecificCharacterSet = self.behaviour.character_set.split("\\")
        made.SeriesInstanceUID = derived_uid(str(made.SeriesInstanceUID), self._now.run)
        made.SOPInstanceUID = derived_uid(str(made.SOPInstanceUID), self._now.run)
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
        return made

    def _store_watched(self, image: Dataset, hops: Hops) -> None:
        with hops.watch(f"{image.SeriesDescription} stored") as note:
            sent = self._store(image)
            self._now.made.append(sent)
            self._now.unasked.append(sent)
            note.detail = f"{sent.size_bytes / 1e6:.1f} MB, {sent.sop_instance_uid}."

    def _store(self, image: Dataset) -> Sent:
        data = encoded(image, image.file_meta.TransferSyntaxUID, self._style)
        with self._associations.opened(self.pacs, self._pacs_kinds()) as line:
            context = line.context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
            request = line.request(
                CommandField.C_STORE, image.SOPClassUID, has_data=True, instance=image.SOPInstanceUID
            )
            _expect(f"C-STORE of {image.SOPInstanceUID}", line.ask(context, request, data), (SUCCESS, *WARNINGS))
        return sent_of(image, data)

    # ---- commitment ------------------------------------------------------------------------------------------------

    def _commit(self, act: Commit) -> str:
        images, self._now.unasked = self._now.unasked, []
        requested = question((image.sop_class_uid, image.sop_instance_uid) for image in images)
        if act.port is not None and act.answer == "new association":
            answer = self._commit_and_be_called(requested, act.port)
        else:
            with self._associations.opened(self.pacs, self._pacs_kinds()) as line:
                self._request_commitment(line, requested)
                answer = _report(line)
        if missing := shortfall([image.sop_instance_uid for image in images], answer):
            raise Observed(missing)
        return f"All {len(images)} images, reported on {'an' if act.port else 'the same'} association" + (
            " of the archive's own." if act.port else "."
        )

    def _commit_and_be_called(self, requested: Dataset, port: int) -> Answer | None:
        reports = Reports()
        with reports.listening(self.caller.ae_title, port):
            with self.caller.opened(self.pacs, self._pacs_kinds()) as line:
                self._request_commitment(line, requested)
            # The association is over, so the archive has to open one of its own.
            return reports.wait(str(requested.TransactionUID), seconds=self.caller.seconds)

    def _request_commitment(self, line: RawAssociation, requested: Dataset) -> None:
        context = line.context(COMMITMENT)
        well_known = str(StorageCommitmentPushModelInstance)
        request = line.request(CommandField.N_ACTION, COMMITMENT, has_data=True, instance=well_known)
        data = encoded(requested, context.transfer_syntax, replace(self._style, sparse=False))
        _expect("N-ACTION for storage commitment", line.ask(context, request, data), (SUCCESS,))

    def _worklist_kinds(self) -> list[tuple[str, str]]:
        return [(uid, self._message_syntax) for uid in (WORKLIST, STEPS)]

    def _pacs_kinds(self) -> list[tuple[str, str]]:
        return [*self._stored, (COMMITMENT, self._message_syntax)]

    @property
    def _message_syntax(self) -> str:
        return SYNTAXES["implicit" if self.behaviour.implicit_only else "explicit"]


_NAMES = {
    "query": "worklist query",
    "begin": "step begun",
    "change": "step changed",
    "end": "step ended",
    "commit": "storage committed",
    "pause": "pause",
}


def _report(line: RawAssociation) -> Answer | None:
    """Wait for the N-EVENT-REPORT on this association and confirm it; None when none comes in time."""
    try:
        command, data = line.answer()
    except Ended:
        return None
    if command.command_field != CommandField.N_EVENT_REPORT:
        raise Observed(f"Instead of the report on storage commitment came command {command.command_field:04X}H.")
    context = line.context(COMMITMENT)
    line.send(context, response(command, SUCCESS))
    return answer_in(decode(data, context.transfer_syntax))


def _expect(what: str, answer: Command, allowed: Sequence[int]) -> None:
    if answer.status not in allowed:
        comment = f": {answer.error_comment}" if answer.error_comment else ""
        raise Observed(f"{what} was answered with {described(answer)}{comment}.")


def _expect_found(count: int, act: Query) -> None:
    if act.expect is not None and count != act.expect:
        raise Observed(f"The worklist answered {count} items; {act.expect} were expected.")
    if act.expect is None and not count:
        raise Observed("The worklist has no such item; see 'gateway worklist list'.")
