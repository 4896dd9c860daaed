"""Flower's SuperLink for the user who started it: ``python -m cordon.federation.flower.superlink OPTIONS``.

The options are flower-superlink's, and before them the objects and bytes that an answer may come to. Its
Control API has no authentication: on loopback every user of the machine could run Python at every site.
Here a request counts only if its sender has our own user id, and a run is started with Cordon's own bundle
alone. What SuperNodes send is taken as `cordon.federation.flower.admission` says.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cordon.console.commands import collect_seldom
from cordon.errors import FederationError
from cordon.federation.flower.admission import Admission
from cordon.federation.flower.bounds import Bound
from cordon.transport.socket_owner import sender

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


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


def with_own_bundle(start_run: Callable[..., Any]) -> Callable[..., Any]:
    """Flower's ``start_run``, which refuses with 403 every request but for a run of Cordon's bundle."""
    import hashlib

    from starlette.exceptions import HTTPException

    from cordon.federation.flower import app_bundle

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
    collect_seldom()
    objects, size, *sys.argv[1:] = sys.argv[1:]
    import uvicorn
    from flwr.superlink.cli import flower_superlink
    from flwr.superlink.servicer.control import control_handlers
    from flwr.superlink.servicer.fleet import fleet_handlers
    from flwr.superlink.servicer.runtime import runtime_handlers

    run = uvicorn.run

    def guarded(app: Any, **options: Any) -> None:
        # A header must not say who the client is.
        run(OwnUser(app), **(options | {"proxy_headers": False}))

    # Flower gives no way to wrap the application that it serves.
    uvicorn.run = guarded
    control_handlers.start_run = with_own_bundle(control_handlers.start_run)
    Admission(Bound(int(objects), int(size))).install(fleet_handlers, runtime_handlers)
    flower_superlink()


if __name__ == "__main__":
    main()
