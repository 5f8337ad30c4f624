"""A web server that does nothing but send files: what is possible. `python -m tests.benchmarks.bare PORT DIR`."""

import sys
from pathlib import Path

from aiohttp import web


def main() -> None:
    """Serve a folder with sendfile."""
    folder = Path(sys.argv[2])

    async def file(request: web.Request) -> web.FileResponse:
        return web.FileResponse(folder / request.match_info["name"])

    app = web.Application()
    app.add_routes([web.get("/{name}", file)])
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
