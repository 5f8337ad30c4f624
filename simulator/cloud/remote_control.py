"""The remote control of the stand-in cloud: send an action, read the events that arrived, order a fault.

Not for: the gateway, which knows the cloud only by its real protocols.
"""

import json
import urllib.request
from dataclasses import dataclass
from urllib.error import HTTPError

from gateway.errors import GatewayError

Json = dict[str, object]


class ControlError(GatewayError):
    """The stand-in cloud refused a request; the message is its answer."""


@dataclass(frozen=True)
class RemoteControl:
    """The stand-in cloud at `url` (see `simulator.cloud.http`)."""

    url: str

    def send(self, action: Json) -> Json:
        """Send an action to the gateway as the cloud does, and give its answer. Raises ControlError without one."""
        return self._post("/actions", action)

    def events(self, message_type: str = "") -> list[Json]:
        """The events that the cloud received so far, each once, in order of arrival."""
        found: list[Json] = json.loads(self._exchange(f"/events?type={message_type}" if message_type else "/events"))
        return found

    def fault(self, what: str, *, connection: str = "actions", value: object = None) -> Json:
        """Order a fault; `simulator.cloud.programme.Cloud.fault` lists them."""
        return self._post("/faults", {"what": what, "connection": connection, "value": value})

    def listeners(self, connection: str = "actions") -> int:
        """How many gateways listen for actions now."""
        state = json.loads(self._exchange("/state"))
        number: int = state["connections"][connection]["listeners"]
        return number

    def _post(self, path: str, content: Json) -> Json:
        answer: Json = json.loads(self._exchange(path, json.dumps(content).encode()))
        return answer

    def _exchange(self, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(  # noqa: S310 - our own http address
            self.url + path, data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                content: bytes = answer.read()
                return content
        except HTTPError as error:
            raise ControlError(
                f"The stand-in cloud answered {error.code}: {error.read(300).decode(errors='replace')}"
            ) from None
