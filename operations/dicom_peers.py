"""C-ECHO, C-STORE and C-FIND to another DICOM application, for an operator.

Not for: associations (`gateway.dicom.requestor`), transfer syntaxes (`pacs.query_retrieve.retrieve`), printing (`cli`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.datadict import tag_for_keyword
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from gateway.dicom.application import UNCOMPRESSED
from gateway.dicom.negotiation import ProposedContext
from gateway.dicom.requestor import calling, proposals, verification
from gateway.errors import GatewayError, PeerError
from gateway.remote_ae import Peer
from gateway.tls import CallFiles
from pacs.query_retrieve.retrieve import Sendable, SendOutcome, sent

_PREAMBLE = 132  # bytes: 128 of preamble, and DICM (PS3.10 7.1)
_GROUP_LENGTH = 12  # bytes of (0002,0000), whose value is the length of the rest of the file meta

SHOWN = {
    "STUDY": ("StudyInstanceUID", "StudyDate", "AccessionNumber", "ModalitiesInStudy", "NumberOfStudyRelatedInstances"),
    "SERIES": ("StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber", "NumberOfSeriesRelatedInstances"),
    "IMAGE": ("SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "InstanceNumber"),
}
"""Return keys of a query without keys; none of them names a person."""


class NotSendable(GatewayError):
    """A file is not one that can be sent, or there is nothing to send."""


class NotAQuery(GatewayError):
    """A key of a query is not one."""


@dataclass(frozen=True, slots=True)
class DicomFile:
    """A Part 10 file outside the archive."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path
    size_bytes: int
    data_set_offset: int


@dataclass(frozen=True, slots=True)
class Sent:
    """The outcome of sending one object."""

    sop_instance_uid: str
    outcome: SendOutcome
    reason: str


def echo(peer: Peer, *, ae_title: str, tls: CallFiles | None = None) -> None:
    """C-ECHO. Raises PeerError when it does not succeed."""
    with calling(peer, verification(), ae_title=ae_title, tls=tls) as call:
        call.echo()


def send(peer: Peer, objects: Sequence[Sendable], *, ae_title: str, tls: CallFiles | None = None) -> Iterator[Sent]:
    """C-STORE objects over one association, one after the other. Raises PeerError when there is none."""
    kinds = [(each.sop_class_uid, each.transfer_syntax_uid) for each in objects]
    lost = ""  # once the association is gone, each object left has the same reason
    with calling(peer, proposals(kinds), ae_title=ae_title, tls=tls) as call:
        for each in objects:
            became, reason = SendOutcome.FAILED, lost
            if not lost:
                try:
                    became, reason = sent(each, call)
                except PeerError as error:
                    reason = lost = str(error)
            yield Sent(each.sop_instance_uid, became, reason)


def find(
    peer: Peer, level: str, keys: Sequence[str], *, ae_title: str, tls: CallFiles | None = None
) -> Iterator[dict[str, object]]:
    """C-FIND in the Study Root model: the return keys of each match. Raises NotAQuery, PeerError."""
    identifier = query(level, keys)
    return_keys = [element.keyword for element in identifier if element.keyword != "QueryRetrieveLevel"]
    sop_class_uid = str(StudyRootQueryRetrieveInformationModelFind)
    contexts = [ProposedContext(1, sop_class_uid, UNCOMPRESSED)]
    with calling(peer, contexts, ae_title=ae_title, tls=tls) as call:
        for match in call.find(sop_class_uid, identifier):
            yield {name: str(match.get(name) or "") for name in return_keys}


def query(level: str, keys: Sequence[str]) -> Dataset:
    """The identifier of keys written KEYWORD=VALUE, or KEYWORD to be shown it. Raises NotAQuery."""
    if level not in SHOWN:
        raise NotAQuery(f"The level has to be {', '.join(SHOWN)}.")
    identifier = Dataset()
    for keyword in SHOWN[level]:
        setattr(identifier, keyword, None)
    for key in keys:
        keyword, _, value = key.partition("=")
        if not keyword or tag_for_keyword(keyword) is None:  # the dictionary has nameless entries
            raise NotAQuery(f"{keyword!r} is not a DICOM keyword such as PatientID or StudyDate.")
        try:
            setattr(identifier, keyword, value or None)
        except (ValueError, TypeError):
            raise NotAQuery(f"{keyword} cannot have this value.") from None
    identifier.QueryRetrieveLevel = level
    return identifier


def files(paths: Iterable[Path]) -> Iterator[DicomFile]:
    """The files to send, those in folders included. Raises NotSendable for one that is not DICOM."""
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                yield _dicom_file(file)


def _dicom_file(path: Path) -> DicomFile:
    try:
        read = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
        meta = read.file_meta
        return DicomFile(
            sop_class_uid=str(read.SOPClassUID),
            sop_instance_uid=str(read.SOPInstanceUID),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
            path=path,
            size_bytes=path.stat().st_size,
            data_set_offset=_PREAMBLE + _GROUP_LENGTH + int(meta.FileMetaInformationGroupLength),
        )
    except OSError:
        raise
    except Exception as error:
        # pydicom raises errors of any type for bytes that are not DICOM.
        raise NotSendable(f"{path} is not a DICOM file (PS3.10) that can be sent.") from error
