"""Reads audit messages back, for tests that compare what was told."""

import base64
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

from gateway.audit.trail import Trail, lines


def messages(folder: Path) -> list[Element]:
    """Every message of a chain but those of start and stop."""
    found = [fromstring(line.message) for line in lines(Trail(folder)) if line.message.startswith("<AuditMessage")]
    return [each for each in found if kind(each) != "Application Activity"]


def kind(message: Element) -> str:
    """Which event it is."""
    return _of(message, "EventIdentification/EventID").get("originalText", "")


def told(message: Element) -> tuple[str, str, str, list[str], list[str]]:
    """Event, action, outcome, who took part in it with their addresses, and the objects."""
    event = _of(message, "EventIdentification")
    return (
        kind(message),
        event.get("EventActionCode", ""),
        event.get("EventOutcomeIndicator", ""),
        [f"{each.get('UserID')}@{each.get('NetworkAccessPointID', '')}" for each in message.iter("ActiveParticipant")],
        [each.get("ParticipantObjectID", "") for each in message.iter("ParticipantObjectIdentification")],
    )


def counts(message: Element) -> dict[str, int]:
    """How many instances of each SOP class."""
    return {each.get("UID", ""): int(each.get("NumberOfInstances", "0")) for each in message.iter("SOPClass")}


def detail(message: Element, name: str) -> str:
    """A detail of an object, decoded."""
    found = next(each for each in message.iter("ParticipantObjectDetail") if each.get("type") == name)
    return base64.b64decode(found.get("value", "")).decode()


def query(message: Element) -> bytes:
    """The identifier of a query."""
    return base64.b64decode(next(message.iter("ParticipantObjectQuery")).text or "")


def _of(message: Element, path: str) -> Element:
    found = message.find(path)
    assert found is not None
    return found
