"""Audit messages of DICOM PS3.15 A.5: event, participants, source and objects. Values in, XML out.

One function for each event of PS3.15 A.5.3 that happens here; participants, roles and object types are those of its
tables. Patients and studies are named by their ids, never by a patient's name.

Not for: storing messages (`gateway.audit.trail`), the choice of the event (`relay.access.audit`, `pacs.audit`,
`worklist.audit`).
"""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from types import MappingProxyType
from typing import Literal
from xml.etree.ElementTree import Element, ParseError, SubElement, fromstring, tostring

APPLICATION = "screening-gateway"
LONGEST_QUERY = 4096
"""Bytes of an identifier; a worklist query has some hundred."""

EventAction = Literal["C", "R", "U", "D"]
"""Event Action Code (A.5.2.1): create, read, update, delete."""

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold (2.2), not even escaped."""


class EventOutcome(IntEnum):
    """Event Outcome Indicator (PS3.15 A.5.2.1)."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8


@dataclass(frozen=True, slots=True)
class CodedValue:
    """A coded value."""

    value: str
    meaning: str
    scheme: str = "DCM"


@dataclass(frozen=True, slots=True)
class Actor:
    """An active participant: the user's id, the address (empty: this machine), a DICOM application's title."""

    name: str
    address: str = ""
    ae_title: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """The patient and study concerned; the id is empty when the study is not known here."""

    patient_id: str
    study_instance_uid: str


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Time, site and outcome of an event."""

    at: datetime
    site: str
    outcome: EventOutcome = EventOutcome.SUCCESS


_SOURCE, _DESTINATION = CodedValue("110153", "Source Role ID"), CodedValue("110152", "Destination Role ID")
_APPLICATION, _LAUNCHER = CodedValue("110150", "Application"), CodedValue("110151", "Application Launcher")
_SOP_CLASS, _STUDY = CodedValue("110181", "SOP Class UID"), CodedValue("110180", "Study Instance UID")
_NODE = CodedValue("110182", "Node ID")
_PATIENT, _URI = CodedValue("2", "Patient Number", "RFC-3881"), CodedValue("12", "URI", "RFC-3881")
_SECURITY_ALERT = CodedValue("110113", "Security Alert")

STARTED, STOPPED = CodedValue("110120", "Application Start"), CodedValue("110121", "Application Stop")
LOGIN, LOGOUT = CodedValue("110122", "Login"), CodedValue("110123", "Logout")
NODE_AUTHENTICATION = CodedValue("110126", "Node Authentication")
RECORDING_STOPPED = CodedValue("110133", "Audit Recording Stopped")
RESTRICTED_FUNCTION = CodedValue("110132", "Use of Restricted Function")
RECORDING_STARTED = CodedValue("110134", "Audit Recording Started")
USERS_CHANGED = CodedValue("110137", "User Security Attributes Changed")


def activity(event: AuditEvent, actor: Actor, kind: CodedValue) -> str:
    """Application Activity (A.5.3.1): this process started or stopped."""
    root = _begun(event, CodedValue("110100", "Application Activity"), "E", kind)
    _participant(root, Actor(APPLICATION), _APPLICATION, is_requestor=False)
    _participant(root, actor, _LAUNCHER)
    return _ended(root, event)


def log_used(event: AuditEvent, actor: Actor, uri: str) -> str:
    """Audit Log Used (A.5.3.2)."""
    root = _begun(event, CodedValue("110101", "Audit Log Used"), "R")
    _participant(root, actor)
    return _ended(root, event, _thing(uri, "2", "13", _URI))


def accessed(event: AuditEvent, actor: Actor, patient: Patient) -> str:
    """DICOM Instances Accessed (A.5.3.6): a user looked at images of a study."""
    root = _begun(event, CodedValue("110103", "DICOM Instances Accessed"), "R")
    _participant(root, actor)
    _participant(root, Actor(APPLICATION), is_requestor=False)
    return _ended(root, event, *_study(patient))


def transfer_begun(event: AuditEvent, actor: Actor, patient: Patient, *, to: str = "") -> str:
    """Begin Transferring DICOM Instances (A.5.3.3): objects of a study begin to leave."""
    root = _begun(event, CodedValue("110102", "Begin Transferring DICOM Instances"), "E")
    _leaving(root, actor, to)
    return _ended(root, event, *_study(patient))


def stored(event: AuditEvent, actor: Actor, patient: Patient, classes: Mapping[str, int]) -> str:
    """DICOM Instances Transferred (A.5.3.7): objects of a study came; `classes` counts them by SOP class."""
    root = _begun(event, CodedValue("110104", "DICOM Instances Transferred"), "C")
    _participant(root, actor, _SOURCE)
    _participant(root, Actor(APPLICATION), _DESTINATION, is_requestor=False)
    return _ended(root, event, *_study(patient, classes))


def transferred(
    event: AuditEvent,
    actor: Actor,
    patient: Patient,
    *,
    to: str = "",
    classes: Mapping[str, int] = MappingProxyType({}),
) -> str:
    """DICOM Instances Transferred (A.5.3.7): objects of a study left for the requestor, or for the application `to`."""
    root = _begun(event, CodedValue("110104", "DICOM Instances Transferred"), "R")
    _leaving(root, actor, to)
    return _ended(root, event, *_study(patient, classes))


def _leaving(root: Element, actor: Actor, to: str) -> None:
    _participant(root, Actor(APPLICATION), _SOURCE, is_requestor=False)
    if to:  # the requestor of a C-MOVE is a third party beside source and destination (A.5.3.7)
        _participant(root, Actor(to), _DESTINATION, is_requestor=False)
        _participant(root, actor)
    else:
        _participant(root, actor, _DESTINATION)


def query(event: AuditEvent, actor: Actor, text: str) -> str:
    """Query (A.5.3.10): the text of the query is kept whole, in base64 as the standard wants it."""
    root = _begun(event, CodedValue("110112", "Query"), "E")
    _participant(root, actor, _SOURCE)
    _participant(root, Actor(APPLICATION), _DESTINATION, is_requestor=False)
    # A query over HTTP has no SOP class; its answer corresponds to one of the Study Root.
    thing = _thing(STUDY_ROOT_FIND, "2", "3", _SOP_CLASS)
    SubElement(thing, "ParticipantObjectQuery").text = base64.b64encode(text.encode("utf-8", "replace")).decode()
    return _ended(root, event, thing)


def found(event: AuditEvent, actor: Actor, sop_class_uid: str, identifier: bytes, transfer_syntax_uid: str) -> str:
    """Query (A.5.3.10) by C-FIND: the identifier as it came, in base64, and the syntax to read it in.

    Of one that is longer than LONGEST_QUERY, only the beginning is kept.
    """
    root = _begun(event, CodedValue("110112", "Query"), "E")
    _participant(root, actor, _SOURCE)
    _participant(root, Actor(APPLICATION), _DESTINATION, is_requestor=False)
    thing = _thing(sop_class_uid, "2", "3", _SOP_CLASS)
    SubElement(thing, "ParticipantObjectQuery").text = base64.b64encode(identifier[:LONGEST_QUERY]).decode()
    _detail(thing, "TransferSyntax", transfer_syntax_uid)
    return _ended(root, event, thing)


def procedure(
    event: AuditEvent,
    actor: Actor,
    action: EventAction,
    patient: Patient,
    mpps_instance_uid: str = "",
    *,
    accession_number: str = "",
) -> str:
    """Procedure Record (A.5.3.15): a scheduled or performed procedure step was created, updated or read."""
    root = _begun(event, CodedValue("110111", "Procedure Record"), action)
    _participant(root, actor)
    return _ended(root, event, *_study(patient, mpps_instance_uid=mpps_instance_uid, accession_number=accession_number))


def node_refused(event: AuditEvent, actor: Actor, reason: str) -> str:
    """Security Alert (A.5.3.11): an application was turned away because of its identity."""
    root = _begun(event, _SECURITY_ALERT, "E", NODE_AUTHENTICATION)
    _participant(root, actor)
    _participant(root, Actor(APPLICATION), is_requestor=False)
    thing = _thing(actor.address, "2", "13", _NODE)
    _detail(thing, "Alert Description", reason)
    return _ended(root, event, thing)


def lost(event: AuditEvent, count: int) -> str:
    """Security Alert: `count` events could not be recorded."""
    text = f"{count} events were not recorded, because the audit trail could not be written for too long."
    return alert(event, Actor(APPLICATION), RECORDING_STOPPED, "urn:gateway:audit", text)


def authentication(event: AuditEvent, actor: Actor, kind: CodedValue = LOGIN) -> str:
    """User Authentication (A.5.3.12): a login, or with a failing outcome the attempt at one; or a logout."""
    root = _begun(event, CodedValue("110114", "User Authentication"), "E", kind)
    _participant(root, actor)
    _participant(root, Actor(APPLICATION), is_requestor=False)
    return _ended(root, event)


def alert(event: AuditEvent, actor: Actor, kind: CodedValue, uri: str, description: str) -> str:
    """Security Alert (A.5.3.11): a restricted function was used or refused, or security settings changed."""
    root = _begun(event, _SECURITY_ALERT, "E", kind)
    _participant(root, actor)
    thing = _thing(uri, "2", "13", _URI)
    _detail(thing, "Alert Description", description)
    return _ended(root, event, thing)


def restored(event: AuditEvent, actor: Actor, *, taken_at: str, number: int) -> str:
    """Security Alert: the trail goes on after it was restored from a backup, up to message `number`."""
    text = (
        f"Restored from the backup of {taken_at}, which ends with message {number}. What was written after that is not "
        "in this trail."
    )
    return alert(event, actor, RECORDING_STARTED, "urn:gateway:audit", text)


def restored_text(message: str) -> str:
    """The sentence of a message that `restored` made; empty for any other."""
    if f'"{RECORDING_STARTED.value}"' not in message:  # so are most lines, and parsing XML is slow
        return ""
    try:
        root = fromstring(message)  # noqa: S314 - our own file; what may stand in it was escaped
    except ParseError:
        return ""
    kinds = {each.get("csd-code") for each in root.iter("EventTypeCode")}
    detail = root.find("ParticipantObjectIdentification/ParticipantObjectDetail")
    if RECORDING_STARTED.value not in kinds or detail is None:
        return ""
    return base64.b64decode(detail.get("value", "")).decode("utf-8", "replace")


def _begun(event: AuditEvent, event_id: CodedValue, action: str, *types: CodedValue) -> Element:
    root = Element("AuditMessage")
    identification = SubElement(
        root,
        "EventIdentification",
        EventActionCode=action,
        EventDateTime=event.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=str(int(event.outcome)),
    )
    _coded(identification, "EventID", event_id)
    for kind in types:
        _coded(identification, "EventTypeCode", kind)
    return root


def _participant(root: Element, actor: Actor, role: CodedValue | None = None, *, is_requestor: bool = True) -> None:
    place = {"NetworkAccessPointID": actor.address, "NetworkAccessPointTypeCode": "2"} if actor.address else {}
    titles = {"AlternativeUserID": f"AETITLES={actor.ae_title}"} if actor.ae_title else {}
    attributes = {"UserID": actor.name, **titles, "UserIsRequestor": str(is_requestor).lower(), **place}
    participant = SubElement(root, "ActiveParticipant", {name: _text(value) for name, value in attributes.items()})
    if role is not None:
        _coded(participant, "RoleIDCode", role)


def _study(
    patient: Patient,
    classes: Mapping[str, int] = MappingProxyType({}),
    *,
    mpps_instance_uid: str = "",
    accession_number: str = "",
) -> Iterator[Element]:
    study = _thing(patient.study_instance_uid, "2", "3", _STUDY)
    if classes or mpps_instance_uid or accession_number:
        described = SubElement(study, "ParticipantObjectDescription")
        if mpps_instance_uid:
            SubElement(described, "MPPS", UID=_text(mpps_instance_uid))
        if accession_number:
            SubElement(described, "Accession", Number=_text(accession_number))
        for sop_class_uid, count in classes.items():
            SubElement(described, "SOPClass", UID=_text(sop_class_uid), NumberOfInstances=str(count))
    yield study
    if patient.patient_id:
        yield _thing(patient.patient_id, "1", "1", _PATIENT)


def _thing(object_id: str, kind: str, role: str, id_type: CodedValue) -> Element:
    """A participant object; kind 1 is a person, 2 a system object; role 1 patient, 3 report, 13 security resource."""
    coded = {"ParticipantObjectTypeCode": kind, "ParticipantObjectTypeCodeRole": role}
    thing = Element("ParticipantObjectIdentification", {"ParticipantObjectID": _text(object_id), **coded})
    _coded(thing, "ParticipantObjectIDTypeCode", id_type)
    return thing


def _detail(thing: Element, kind: str, value: str) -> None:
    encoded = base64.b64encode(value.encode("utf-8", "replace")).decode()
    SubElement(thing, "ParticipantObjectDetail", type=kind, value=encoded)


def _coded(parent: Element, name: str, code: CodedValue) -> None:
    attributes = {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning}
    SubElement(parent, name, attributes)


def _ended(root: Element, event: AuditEvent, *things: Element) -> str:
    source = SubElement(
        root, "AuditSourceIdentification", AuditEnterpriseSiteID=_text(event.site), AuditSourceID=APPLICATION
    )
    _coded(source, "AuditSourceTypeCode", CodedValue("4", "Application Server"))
    root.extend(things)
    return tostring(root, encoding="unicode")


def _text(value: str) -> str:
    """Replace characters that XML cannot hold."""
    # Line ends need nothing: ElementTree escapes them in attributes, so a message is one line of the trail.
    return _NOT_XML.sub("�", value)
