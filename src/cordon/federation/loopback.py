"""Flower's SuperLink for the user who started it: ``python -m cordon.federation.loopback OPTIONS``.

The options are flower-superlink's. Its Control API has no authentication: on loopback every user of the
machine could run Python at every site. Here a request counts only if its sender has our own user id, and a
run is started with Cordon's own bundle alone.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cordon.errors import FederationError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

TABLE = Path("/proc/net/tcp")
ESTABLISHED = "01"


class OwnUser:
    """An ASGI application that refuses requests which another user of this machine sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what comes from our own user; refuse the rest with 403."""
        if scope["type"] == "lifespan" or sender(scope["client"], scope["server"]) == os.geteuid():
            await self._app(scope, receive, send)
            return
        from starlette.responses import JSONResponse

        refusal = JSONResponse({"detail": "this SuperLink serves its own user"}, 403, {"connection": "close"})
        await refusal(scope, receive, send)


def sender(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """The user id at the ``client`` end of a connection within this machine; None where there is none.

    The kernel's table of connections says it (proc_net_tcp, Linux). A socket that its process has closed
    is shown there as the superuser's, without an inode: such a sender counts as nobody.
    """
    try:
        ends = [_end(*client), _end(*server)]
    except OSError:
        return None
    with TABLE.open() as table:
        for row in map(str.split, table):
            if row[1:3] == ends and row[3] == ESTABLISHED and row[9] != "0":
                return int(row[7])
    return None


def _end(host: str, port: int) -> str:
    address = int.from_bytes(socket.inet_aton(host), sys.byteorder)
    return f"{address:08X}:{port:04X}"


def with_own_bundle(start_run: Callable[..., Any]) -> Callable[..., Any]:
    """Flower's ``start_run``, which refuses with 403 every request but for a run of Cordon's bundle."""
    import hashlib

    from starlette.exceptions import HTTPException

    from cordon.federation import app_bundle

    def started(request: Any, *others: Any, **options: Any) -> Any:
        if request.app_spec:
            raise HTTPException(403, "this SuperLink runs no app of a hub")
        try:
            # By content: what a request says of its own hash counts for nothing.
            app_bundle.check(hashlib.sha256(request.fab.content).hexdigest(), "what was submitted")
        except FederationError as error:
            raise HTTPException(403, str(error)) from None
        return start_run(request, *others, **options)

    return started


def main() -> None:
    """Run flower-superlink, its application behind `OwnUser`."""
    import uvicorn
    from flwr.superlink.cli import flower_superlink
    from flwr.superlink.servicer.control import control_handlers

    run = uvicorn.run

    def guarded(app: Any, **options: Any) -> None:
        # A header must not say who the client is.
        run(OwnUser(app), **(options | {"proxy_headers": False}))

    # Flower gives no way to wrap the application that it serves.
    uvicorn.run = guarded
    control_handlers.start_run = with_own_bundle(control_handlers.start_run)
    flower_superlink()


if __name__ == "__main__":
    main()
