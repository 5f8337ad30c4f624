"""Runs the pretend cloud as a process.

    python -m simulator.cloud --port 0

prints one line of JSON with the addresses and the gateway's settings to use them, and runs until SIGTERM.

Not for: what the cloud does (`programme`).
"""

import argparse
import asyncio
import json
import signal
import sys
from dataclasses import asdict

from gateway import log
from simulator.cloud.programme import Cloud


async def serve(*, port: int, control_port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Cloud(port=port, control_port=control_port) as cloud:
        facts = {**asdict(cloud.addresses), "settings": cloud.addresses.settings()}
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A pretend screening programme in the cloud, for this machine only.")
    parser.add_argument("--port", type=int, default=0, help="of the hybrid connections; 0 chooses a free one")
    parser.add_argument("--door-port", type=int, default=0, help="of the API and the door; 0 chooses a free one")
    options = parser.parse_args()
    log.configure("WARNING", process="cloud")
    asyncio.run(serve(port=options.port, control_port=options.door_port))


if __name__ == "__main__":
    main()
