"""The events with the outcome of a deferred action, which takes longer than the reply to the cloud may wait.

Not for: carrying it out (`relay.cloud.full_images`, `relay.cloud.site_tasks`).
"""

from typing import Literal

from gateway.messages.envelope import EventParameters, Message


class Answering(EventParameters):
    """What became of something the cloud has asked for; `request_id` is the id of that action."""

    request_id: str

    @property
    def subject(self) -> str:
        # One for each action, so that no outcome waits for another's and those of one action arrive in order.
        return f"answers/{self.request_id}"


class UploadCompleted(Answering):
    """A full image is where it was wanted. `sha256` and `size_bytes` are of the file as it was uploaded.

    That is the stored one, unless a lossless compression was asked for; the transfer syntax says so.
    """

    sop_instance_uid: str
    sha256: str
    size_bytes: int
    transfer_syntax_uid: str

    @property
    def message_type(self) -> str:
        return "image.upload_completed"

    @property
    def message_id(self) -> str:
        return f"{self.request_id}/{self.sop_instance_uid}/uploaded"


class ImageUnavailable(Answering):
    """A full image cannot be given; ask again, with another action id, once the reason is out of the way."""

    sop_instance_uid: str
    code: Literal["not_found", "not_convertible", "held_back", "url_refused", "refused"]
    reason: str

    @property
    def message_type(self) -> str:
        return "image.unavailable"

    @property
    def message_id(self) -> str:
        return f"{self.request_id}/{self.sop_instance_uid}/unavailable"


class SeenHop(Message):
    """One hop of a test: `ok`, `failed` or `skipped`, and what was seen."""

    name: str
    state: str
    detail: str = ""
    seconds: float = 0.0


class Tested(Answering):
    """How a test went, hop by hop; `reason` says why it did not run at all, or not to its end."""

    passed: bool
    reason: str = ""
    hops: tuple[SeenHop, ...] = ()

    @property
    def message_id(self) -> str:
        return f"{self.request_id}/tested"


class SelftestCompleted(Tested):
    @property
    def message_type(self) -> str:
        return "gateway.selftest_completed"


class TestItemPerformed(Tested):
    """The emulator has performed a test item, or tried to."""

    @property
    def message_type(self) -> str:
        return "worklist.test_item_performed"


class DiagnosticsCompleted(Answering):
    """A diagnostics bundle is where it was wanted, or on site as `file`; or there is none, because of `reason`."""

    file: str = ""
    sha256: str = ""
    size_bytes: int = 0
    reason: str = ""

    @property
    def message_type(self) -> str:
        return "gateway.diagnostics_completed"

    @property
    def message_id(self) -> str:
        return f"{self.request_id}/diagnostics"
