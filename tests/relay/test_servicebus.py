"""Only what needs no broker: a Service Bus that is not there is tried again, soon, and with a new client each time."""

import asyncio
import socket
import time

from azure.servicebus import TransportType

from relay.servicebus import ServiceBusDestination, by_connection_string
from tests.relay.told import outcome


def test_a_service_bus_that_is_not_there_is_tried_again_in_bounded_time() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]

    async def run() -> None:
        address = (
            f"Endpoint=sb://127.0.0.1:{port};SharedAccessKeyName=k;SharedAccessKey=a2V5;UseDevelopmentEmulator=true;"
        )
        connect = by_connection_string(address, transport=TransportType.Amqp)
        destination = ServiceBusDestination(connect, entity="events", seconds=3)
        began = time.monotonic()
        assert [await outcome(destination) for _ in range(2)] == ["tried again", "tried again"]
        assert time.monotonic() - began < 8
        await destination.close()

    asyncio.run(run())
