"""Health of the gateway: the answer to the `health` action, and the heartbeat.

Not for: the checks themselves (`relay.health.report`).
"""

from gateway.messages.envelope import EventParameters, Message


class Check(Message):
    """One hop: whether it is well, when that was last proven by a round trip, and what to do when it is not."""

    ok: bool
    detail: str = ""
    proven_at: str | None = None


class HealthReport(Message):
    """The `health` of a health answer."""

    healthy: bool
    version: str
    listener_uptime_seconds: float
    checks: dict[str, Check]


class Heartbeat(HealthReport, EventParameters):
    """The gateway is alive. Not a fact that is owed: it is sent past the outbox and never repeated."""

    sent_at: str

    @property
    def message_type(self) -> str:
        return "gateway.heartbeat"

    @property
    def message_id(self) -> str:
        return f"heartbeat/{self.sent_at}"

    @property
    def subject(self) -> str:
        return "heartbeat"
