"""Negotiation by itself, with pynetdicom as the judge of what is read and written."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import PresentationContext, build_context, negotiate_as_acceptor, negotiate_as_requestor

from gateway.dicom import negotiation
from gateway.dicom.application import VERIFICATION
from gateway.dicom.negotiation import AcceptedContext, AssociateRequest, ProposedContext, Rejection, Supported
from gateway.errors import ProtocolError

CT, MG, EXPLICIT, IMPLICIT, J2K = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.4.90",
)


def request_pdu(contexts: list[PresentationContext], *extras: object) -> bytes:
    """An A-ASSOCIATE-RQ as pynetdicom writes it."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "MAMMO_1", "SCREENING_PACS"
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = "1.2.3.4"
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = "VENDOR_7"
    primitive.user_information = [length, implementation, version, *extras]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = contexts
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def test_a_request_is_read() -> None:
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = CT, True, True
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field = 1, b"somebody"
    body = request_pdu([build_context(CT, [EXPLICIT, IMPLICIT]), build_context(MG, [J2K])], role, identity)[6:]
    assert negotiation.parse_request(body) == AssociateRequest(
        called_ae_title="SCREENING_PACS",
        calling_ae_title="MAMMO_1",
        application_context="1.2.840.10008.3.1.1.1",
        contexts=(ProposedContext(1, CT, (EXPLICIT, IMPLICIT)), ProposedContext(3, MG, (J2K,))),
        max_length=16384,
        implementation_class_uid="1.2.3.4",
        implementation_version_name="VENDOR_7",
        roles=((CT, True, True),),
        names_user=True,
    )


def answered(*extras: object) -> A_ASSOCIATE_AC:
    """Our answer to a request for one context with these user items, as pynetdicom reads it."""
    pdu = request_pdu([build_context(CT, [EXPLICIT])], *extras)
    request = negotiation.parse_request(pdu[6:])
    accepted, items = negotiation.negotiate(request, Supported({CT: (EXPLICIT,)}))
    answer = A_ASSOCIATE_AC()
    answer.decode(negotiation.encode_accept(request, pdu[6:], items, max_length=131072, accepted=accepted))
    return answer


def test_asynchronous_operations_are_answered_with_one_after_the_other() -> None:
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 8
    answers = [(item.maximum_number_operations_invoked, item.maximum_number_operations_performed)
               for item in answered(window).user_information.user_data if item.item_type == 0x53]  # fmt: skip
    assert answers == [(1, 1)]
    assert [item.item_type for item in answered().user_information.user_data] == [0x51, 0x52, 0x55]


def test_a_user_gets_no_positive_response_because_nobody_checks_it() -> None:
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field, identity.positive_response_requested = 1, b"somebody", True
    assert [item.item_type for item in answered(identity).user_information.user_data] == [0x51, 0x52, 0x55]


def test_extended_negotiation_of_a_class_that_has_none_is_not_answered() -> None:
    extended, common = SOPClassExtendedNegotiation(), SOPClassCommonExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = CT, b"\1\2"
    common.sop_class_uid, common.service_class_uid = CT, "1.2.840.10008.4.2"
    user_data = answered(extended, common).user_information.user_data
    assert [item.item_type for item in user_data] == [0x51, 0x52, 0x55]


SYNTAXES = st.lists(st.sampled_from([EXPLICIT, IMPLICIT, J2K]), min_size=1, max_size=3, unique=True)
CLASSES = st.sampled_from([CT, MG, "1.2.840.10008.1.1", "1.2.3.999"])


@settings(deadline=None)
@given(
    proposed=st.lists(st.tuples(CLASSES, SYNTAXES), min_size=1, max_size=8),
    supported=st.dictionaries(CLASSES, SYNTAXES, max_size=3),
)
def test_pynetdicom_reads_our_answer_as_we_meant_it_and_decides_alike(
    proposed: list[tuple[str, list[str]]], supported: dict[str, list[str]]
) -> None:
    pdu = request_pdu([build_context(name, syntaxes) for name, syntaxes in proposed])
    request = negotiation.parse_request(pdu[6:])
    accepted, items = negotiation.negotiate(
        request, Supported({name: tuple(syntaxes) for name, syntaxes in supported.items()})
    )
    answer = A_ASSOCIATE_AC()
    answer.decode(negotiation.encode_accept(request, pdu[6:], items, max_length=131072))
    primitive = answer.to_primitive()
    theirs = A_ASSOCIATE_RQ()
    theirs.decode(pdu)
    judged, _ = negotiate_as_acceptor(
        theirs.to_primitive().presentation_context_definition_list,
        [build_context(name, syntaxes) for name, syntaxes in supported.items()],
    )
    results = {context.context_id: context.result for context in primitive.presentation_context_definition_results_list}
    assert results == {context.context_id: context.result for context in judged}
    assert {context.context_id for context in accepted} == {c.context_id for c in judged if c.result == 0}
    for context in accepted:
        wanted = proposed[context.context_id // 2][1]
        assert context.transfer_syntax == next(s for s in wanted if s in supported[context.abstract_syntax])
    assert (primitive.calling_ae_title, primitive.called_ae_title) == ("MAMMO_1", "SCREENING_PACS")
    assert primitive.maximum_length_received == 131072


def test_a_role_is_answered_with_what_the_peer_may_be() -> None:
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = CT, True, True
    pdu = request_pdu([build_context(CT, [EXPLICIT])], role)
    request = negotiation.parse_request(pdu[6:])
    _, items = negotiation.negotiate(request, Supported({CT: (EXPLICIT,)}))
    answer = A_ASSOCIATE_AC()
    answer.decode(negotiation.encode_accept(request, pdu[6:], items, max_length=0))
    assert [(r.scu_role, r.scp_role) for r in answer.user_information.role_selection.values()] == [(1, 0)]


GET = "1.2.840.10008.5.1.4.1.2.2.3"
GET_AND_CT = Supported({GET: (EXPLICIT,), CT: (J2K, IMPLICIT, EXPLICIT)}, reversible={GET: frozenset({CT})})


@pytest.mark.parametrize(
    ("proposed", "scp", "syntax"),
    [((GET, CT), 1, EXPLICIT), ((CT,), 0, J2K)],
    ids=["with C-GET, and Explicit VR is preferred", "not without"],
)
def test_a_peer_may_be_scp_of_storage_with_c_get(proposed: tuple[str, ...], scp: int, syntax: str) -> None:
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = CT, False, True
    pdu = request_pdu([build_context(name, [J2K, IMPLICIT, EXPLICIT]) for name in proposed], role)
    request = negotiation.parse_request(pdu[6:])
    accepted, items = negotiation.negotiate(request, GET_AND_CT)
    answer = A_ASSOCIATE_AC()
    answer.decode(negotiation.encode_accept(request, pdu[6:], items, max_length=0, accepted=accepted))
    assert [(r.scu_role, r.scp_role) for r in answer.user_information.role_selection.values()] == [(0, scp)]
    assert [(c.transfer_syntax, c.peer_is_scp) for c in accepted if c.abstract_syntax == CT] == [(syntax, scp == 1)]


COMMITMENT = "1.2.840.10008.1.20.1"
ROLES = [None, (False, False), (False, True), (True, False), (True, True)]


def commitment_request() -> bytes:
    """Our request to be called SCP of storage commitment, with echoes in the usual role."""
    proposed = [ProposedContext(1, COMMITMENT, (EXPLICIT,)), ProposedContext(3, VERIFICATION, (IMPLICIT,))]
    return negotiation.encode_request(
        proposed, called_ae_title="MAMMO_1", calling_ae_title="PACS", max_length=16384, scp_of=(COMMITMENT,)
    )


def test_pynetdicom_reads_that_we_offer_to_be_scp() -> None:
    theirs = A_ASSOCIATE_RQ()
    theirs.decode(commitment_request())
    roles = theirs.user_information.role_selection
    assert {str(uid): (role.scu_role, role.scp_role) for uid, role in roles.items()} == {COMMITMENT: (0, 1)}
    assert [item.item_type for item in theirs.user_information.user_data] == [0x51, 0x52, 0x54, 0x55]


@pytest.mark.parametrize("answered", ROLES)
@pytest.mark.parametrize("unasked", ROLES)
def test_we_are_scp_where_pynetdicom_would_take_us_for_one(
    answered: tuple[bool, bool] | None, unasked: tuple[bool, bool] | None
) -> None:
    pdu = commitment_request()
    request = negotiation.parse_request(pdu[6:])
    given = {uid: roles for uid, roles in ((COMMITMENT, answered), (VERIFICATION, unasked)) if roles is not None}
    says = replace(request, roles=tuple((uid, scu, scp) for uid, (scu, scp) in given.items()))
    supported = {COMMITMENT: (EXPLICIT,), VERIFICATION: (IMPLICIT,)}
    _, items = negotiation.negotiate(request, Supported(supported))
    granted = [AcceptedContext(1, uid, EXPLICIT, peer_is_scp=True) for uid in given]
    body = negotiation.encode_accept(says, pdu[6:], items, max_length=0, accepted=granted)[6:]

    accepted, _ = negotiation.parse_accept(body, request.contexts, scp_of=(COMMITMENT,))

    contexts = [build_context(COMMITMENT, EXPLICIT), build_context(VERIFICATION, IMPLICIT)]
    contexts[0].scu_role, contexts[0].scp_role = False, True
    results = A_ASSOCIATE_AC()
    results.decode(b"\2\0" + len(body).to_bytes(4, "big") + body)
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    judged = negotiate_as_requestor(
        contexts, results.to_primitive().presentation_context_definition_results_list, given
    )
    assert [not context.peer_is_scp for context in accepted] == [context.as_scp for context in judged]


def test_roles_that_were_not_asked_for_are_not_even_read() -> None:
    pdu = negotiation.encode_request(
        [ProposedContext(1, CT, (EXPLICIT,))], called_ae_title="A", calling_ae_title="B", max_length=0
    )
    request = negotiation.parse_request(pdu[6:])
    _, items = negotiation.negotiate(request, Supported({CT: (EXPLICIT,)}))
    says = replace(request, roles=((CT, True, True),))
    answer = negotiation.encode_accept(says, pdu[6:], items, max_length=0)[6:]
    broken = answer.replace(len(CT).to_bytes(2, "big") + CT.encode() + b"\1\0", b"\xff\xff" + CT.encode() + b"\1\0")
    assert broken != answer
    expected = (AcceptedContext(1, CT, EXPLICIT, peer_is_scp=True),)
    assert negotiation.parse_accept(broken, request.contexts) == (expected, 0)
    with pytest.raises(ProtocolError):
        negotiation.parse_accept(broken, request.contexts, scp_of=(CT,))


def test_extended_negotiation_is_answered_with_what_both_can_do() -> None:
    wish = SOPClassExtendedNegotiation()
    wish.sop_class_uid, wish.service_class_application_information = CT, b"\x01\x01\x00"
    pdu = request_pdu([build_context(CT, [EXPLICIT])], wish)
    request = negotiation.parse_request(pdu[6:])
    accepted, items = negotiation.negotiate(request, Supported({CT: (EXPLICIT,)}, extended={CT: b"\x01\x00"}))
    answer = A_ASSOCIATE_AC()
    answer.decode(negotiation.encode_accept(request, pdu[6:], items, max_length=0, accepted=accepted))
    assert [item.app_info for item in answer.user_information.ext_neg] == [b"\x01\x00"]
    assert [context.extended for context in accepted] == [b"\x01\x00"]


def test_a_rejection_is_read_by_pynetdicom() -> None:
    answer = A_ASSOCIATE_RJ()
    answer.decode(negotiation.encode_reject(Rejection(2, 3, 2, "Full.")))
    assert (answer.result, answer.source, answer.reason_diagnostic) == (2, 3, 2)


GOOD = request_pdu([build_context(CT, [EXPLICIT, IMPLICIT]), build_context(MG, [J2K])])[6:]


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_mutated_request_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    body = bytearray(GOOD)
    for place in data.draw(st.lists(st.integers(68, len(body) - 1), max_size=5)):
        body[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(68, len(body)))
    try:
        negotiation.parse_request(bytes(body[:cut]))
    except ProtocolError as error:
        assert str(error)


def test_a_context_proposed_twice_or_with_an_even_number_is_refused() -> None:
    twice = GOOD.replace(b"\x20\x00", b"\x20\x00", 1).replace(b"\x03\x00\x00\x00\x30", b"\x01\x00\x00\x00\x30")
    even = GOOD.replace(b"\x03\x00\x00\x00\x30", b"\x02\x00\x00\x00\x30")
    for body in (twice, even):
        with pytest.raises(ProtocolError):
            negotiation.parse_request(body)


def test_the_conformance_statement_names_the_implementation_that_peers_are_told() -> None:
    statement = (Path(__file__).parents[3] / "CONFORMANCE.md").read_text(encoding="utf-8")
    assert f"| Implementation Class UID | {negotiation.IMPLEMENTATION_CLASS_UID} |" in statement
    assert f"| Implementation Version Name | {negotiation.IMPLEMENTATION_VERSION_NAME} |" in statement
