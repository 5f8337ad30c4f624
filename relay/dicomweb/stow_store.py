"""Stores an upload by C-STORE over an association with this site's own archive.

An uploaded image is therefore checked, synced, indexed, enqueued for the cloud and forwarded before it is called
stored, and refused for the same reasons as a modality's. Blocking; called in a thread.

Not here: HTTP (`relay.dicomweb.stow`), associations (`gateway.dicom.requestor`).
"""

from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.dicom.dimse import Command
from gateway.dicom.requestor import Call, NothingAccepted, calling, proposals
from gateway.dicom.store_suboperations import Outgoing
from gateway.remote_ae import Peer
from gateway.tls import CallFiles
from pacs import Part10

log = structlog.get_logger()

PROCESSING_FAILURE = 0x0110
"""PS3.7 C.5.14, and PS3.18 Table 10.5.3-2 for STOW-RS."""

CLASS_NOT_SUPPORTED, SYNTAX_NOT_SUPPORTED = 0x0122, 0xC122


@dataclass(frozen=True)
class StowStore:
    """The archive of this site, and the AE title that calls it."""

    archive: Peer
    ae_title: str
    tls: CallFiles | None = None

    def store(self, path: Path, found: Part10) -> int:
        """Send one file and return the status of the C-STORE, or the one that says why there was none.

        Raises PeerError when the association fails or breaks.
        """
        kinds = proposals([(found.sop_class_uid, found.transfer_syntax_uid)])
        try:
            with calling(self.archive, kinds, ae_title=self.ae_title, tls=self.tls) as call:
                if found.transfer_syntax_uid not in call.syntaxes(found.sop_class_uid):
                    return SYNTAX_NOT_SUPPORTED
                answer = self._sent(call, path, found)
        except NothingAccepted:
            return CLASS_NOT_SUPPORTED
        if answer.status != 0x0000:  # the error comment is the archive's own and holds no patient data
            log.info("upload refused", sop_instance_uid=found.sop_instance_uid, reason=answer.error_comment)
        return PROCESSING_FAILURE if answer.status is None else answer.status

    def _sent(self, call: Call, path: Path, found: Part10) -> Command:
        with path.open("rb") as file:
            file.seek(found.data_set_offset)
            outgoing = Outgoing(
                sop_class_uid=found.sop_class_uid,
                sop_instance_uid=found.sop_instance_uid,
                transfer_syntax_uid=found.transfer_syntax_uid,
                data=file,
                size_bytes=found.size_bytes - found.data_set_offset,
            )
            return call.store(outgoing)
