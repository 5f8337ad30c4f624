#!/bin/sh
# Guess: `transport_type=Amqp` is plain AMQP on port 5671, with a proxy or without; and `http_proxy` is written alike
#        for the client and for its twin in `azure.servicebus.aio`.
# Seen:  with `http_proxy` the client asks the proxy for port 443: it has changed to AMQP in a websocket without a
#        word. The twin wants the proxy's host with its scheme ("http://proxy"), the other one without ("proxy"); each
#        fails with the other's spelling before it has reached the proxy.
# With:  azure-servicebus 7.15.0 with aiohttp 3.14.5 and websocket-client 1.9.0.
# Means: what was set is not what the firewall sees: a site that opened 5671 waits for a port that nobody uses.
# Here:  plain AMQP is never given a proxy, and the operator is told that it goes straight out
#        (relay/delivery/servicebus.py, relay/assembly/cloud_link.py).
. "$(dirname "$0")/setup"
packages azure-servicebus==7.15.0 aiohttp==3.14.5 websocket-client==1.9.0

python <<'PYTHON'
import asyncio
import logging
import socket
import threading

from azure.servicebus import ServiceBusClient, ServiceBusMessage, TransportType
from azure.servicebus.aio import ServiceBusClient as AsyncServiceBusClient
from azure.servicebus.exceptions import ServiceBusError

logging.disable(logging.CRITICAL)
KEY = "Endpoint=sb://site.example.test/;SharedAccessKeyName=key;SharedAccessKey=c2VjcmV0"
asked: list[str] = []


def proxy(listener: socket.socket) -> None:
    """Notes what it is asked for, and refuses."""
    while True:
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(4096).decode().splitlines()[0])
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


def options(host: str) -> dict[str, object]:
    way = {"proxy_hostname": host, "proxy_port": listener.getsockname()[1]}
    return {"transport_type": TransportType.Amqp, "http_proxy": way, "retry_total": 0}


def client(host: str) -> None:
    with ServiceBusClient.from_connection_string(KEY, **options(host)) as bus, bus.get_queue_sender("q") as sender:
        sender.send_messages(ServiceBusMessage("event"))


async def twin(host: str) -> None:
    async with AsyncServiceBusClient.from_connection_string(KEY, **options(host)) as bus:
        async with bus.get_queue_sender("q") as sender:
            await sender.send_messages(ServiceBusMessage("event"))


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=proxy, args=(listener,), daemon=True).start()
seen = {}
for name, call in (("client", client), ("twin", lambda host: asyncio.run(twin(host)))):
    for host in ("127.0.0.1", "http://127.0.0.1"):
        asked.clear()
        try:
            call(host)
        except ServiceBusError as error:
            seen[name, host] = list(asked)
            print(f"{name:6} with {host:16}: the proxy is asked {asked or 'nothing'}; {type(error).__name__}")
to_443 = ["CONNECT site.example.test:443 HTTP/1.1"]
raise SystemExit(
    seen
    != {
        ("client", "127.0.0.1"): to_443,
        ("client", "http://127.0.0.1"): [],
        ("twin", "127.0.0.1"): [],
        ("twin", "http://127.0.0.1"): to_443,
    }
)
PYTHON
