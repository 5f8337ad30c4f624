"""Audit messages, whole, as PS3.15 A.5 has them."""

from datetime import UTC, datetime
from xml.etree.ElementTree import fromstring

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit import messages
from gateway.audit.messages import Actor, AuditEvent, EventOutcome, Patient

EVENT = AuditEvent(datetime(2026, 11, 22, 9, 30, tzinfo=UTC), "Van 7")
WHO = Actor("vera", "10.0.0.9")
SOURCE = (
    '<AuditSourceIdentification AuditEnterpriseSiteID="Van 7" AuditSourceID="screening-gateway">'
    '<AuditSourceTypeCode csd-code="4" codeSystemName="DCM" originalText="Application Server" />'
    "</AuditSourceIdentification>"
)
BEGIN = '<AuditMessage><EventIdentification EventActionCode="{}" EventDateTime="2026-11-22T09:30:00.000+00:00"'


def test_objects_that_left_are_told_with_source_destination_study_and_patient() -> None:
    assert messages.transferred(EVENT, WHO, Patient("9990000018", "2.25.1")) == (
        BEGIN.format("R") + ' EventOutcomeIndicator="0">'
        '<EventID csd-code="110104" codeSystemName="DCM" originalText="DICOM Instances Transferred" />'
        "</EventIdentification>"
        '<ActiveParticipant UserID="screening-gateway" UserIsRequestor="false">'
        '<RoleIDCode csd-code="110153" codeSystemName="DCM" originalText="Source Role ID" /></ActiveParticipant>'
        '<ActiveParticipant UserID="vera" UserIsRequestor="true" NetworkAccessPointID="10.0.0.9"'
        ' NetworkAccessPointTypeCode="2">'
        '<RoleIDCode csd-code="110152" codeSystemName="DCM" originalText="Destination Role ID" /></ActiveParticipant>'
        + SOURCE
        + '<ParticipantObjectIdentification ParticipantObjectID="2.25.1" ParticipantObjectTypeCode="2"'
        ' ParticipantObjectTypeCodeRole="3">'
        '<ParticipantObjectIDTypeCode csd-code="110180" codeSystemName="DCM" originalText="Study Instance UID" />'
        "</ParticipantObjectIdentification>"
        '<ParticipantObjectIdentification ParticipantObjectID="9990000018" ParticipantObjectTypeCode="1"'
        ' ParticipantObjectTypeCodeRole="1">'
        '<ParticipantObjectIDTypeCode csd-code="2" codeSystemName="RFC-3881" originalText="Patient Number" />'
        "</ParticipantObjectIdentification></AuditMessage>"
    )


def test_a_query_is_kept_whole_in_base64() -> None:
    told = messages.query(EVENT, WHO, "/dicom-web/studies?PatientName=A")
    assert told.startswith(BEGIN.format("E"))
    assert told.endswith(
        '<ParticipantObjectIdentification ParticipantObjectID="1.2.840.10008.5.1.4.1.2.2.1"'
        ' ParticipantObjectTypeCode="2" ParticipantObjectTypeCodeRole="3">'
        '<ParticipantObjectIDTypeCode csd-code="110181" codeSystemName="DCM" originalText="SOP Class UID" />'
        "<ParticipantObjectQuery>L2RpY29tLXdlYi9zdHVkaWVzP1BhdGllbnROYW1lPUE=</ParticipantObjectQuery>"
        "</ParticipantObjectIdentification></AuditMessage>"
    )


def test_a_login_that_failed_says_so() -> None:
    told = messages.authentication(AuditEvent(EVENT.at, EVENT.site, EventOutcome.MINOR_FAILURE), WHO)
    assert told.startswith(
        BEGIN.format("E") + ' EventOutcomeIndicator="4">'
        '<EventID csd-code="110114" codeSystemName="DCM" originalText="User Authentication" />'
        '<EventTypeCode csd-code="110122" codeSystemName="DCM" originalText="Login" /></EventIdentification>'
    )


def test_a_logout_is_told_as_the_standard_wants_it() -> None:
    told = messages.authentication(EVENT, WHO, messages.LOGOUT)
    assert '<EventTypeCode csd-code="110123" codeSystemName="DCM" originalText="Logout" />' in told


@settings(max_examples=80, deadline=None)
@given(st.text(), st.text(), st.text())
def test_whatever_stands_in_it_a_message_is_one_line_of_xml(name: str, uid: str, asked: str) -> None:
    for told in (
        messages.accessed(EVENT, Actor(name, asked), Patient(asked, uid)),
        messages.query(EVENT, Actor(name), asked),
        messages.alert(EVENT, Actor(name), messages.RESTRICTED_FUNCTION, uid, asked),
    ):
        assert "\n" not in told
        assert fromstring(told).tag == "AuditMessage"
