"""A gate for tests, in a thread of this process, before a server that writes down all it receives."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import uvicorn

from cordon.federation.gate import app, listener
from cordon.federation.gate.app import Gate
from cordon.federation.gate.limits import Bounds

ALLOWED_PATH = "/v1/fleet/pull-messages"


class Recorder:
    """An HTTP server in the SuperLink's place; ``reply`` makes its answer of a request's body."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.reply: Callable[[bytes], tuple[int, bytes]] = lambda body: (200, b"answer")
        self.pause = 0.0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append((scope["method"], scope["raw_path"].decode(), headers, body))
        await asyncio.sleep(self.pause)
        status, content = self.reply(body)
        inner = [(b"content-type", b"application/x-protobuf"), (b"x-inner", b"secret-of-the-superlink")]
        length = [(b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": inner + length})
        await send({"type": "http.response.body", "body": content})


class ServedGate:
    """A gate with its own key at ``127.0.0.1:port``, in front of a `Recorder`.

    With ``timeless`` no time goes by for it but what `pass_time` lets pass: then its deadlines are events,
    which a busy machine neither hastens nor delays.
    """

    def __init__(self, bounds: Bounds, *, timeless: bool = False, **options: Any) -> None:
        self._timeless, self._now, self._thawed = timeless, 1000.0, 0.0
        self.identity = listener.TLSIdentity.made("127.0.0.1", ())
        self.upstream = Recorder()
        self.upstream_url = ""
        self.app: Any = None
        self._bounds = bounds
        self._options = options
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> ServedGate:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        # Servers end by looking at their clocks.
        self._timeless, self._thawed = False, time.monotonic()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)

    def pass_time(self, seconds: float) -> None:
        """Let time go by for a timeless gate; what falls due is done when this returns."""
        if not self._timeless:
            return
        over = threading.Event()

        def later(turns: int) -> None:
            if turns:
                self._loop.call_soon(later, turns - 1)
            else:
                over.set()

        def go() -> None:
            self._now += seconds
            later(20)

        self._loop.call_soon_threadsafe(go)
        assert over.wait(60) or not self._thread.is_alive()

    def reached(self, condition: Callable[[], Any]) -> None:
        """Wait until something has come to the gate, or to the server behind it."""
        patience = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < patience
            time.sleep(0.01)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        if self._timeless:
            self._loop.time = self._time  # type: ignore[method-assign]
        inner = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{inner.getsockname()[1]}"
        config = uvicorn.Config(self.upstream, log_config=None, log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        server.capture_signals = _no_signals  # type: ignore[method-assign]
        serving = asyncio.create_task(server.serve(sockets=[inner]))
        limits = httpx.Limits(max_connections=self._bounds.upstream_connections, keepalive_expiry=2)
        timeout = httpx.Timeout(self._bounds.upstream_time, connect=5, pool=1)
        async with httpx.AsyncClient(
            base_url=self.upstream_url or url, timeout=timeout, limits=limits, trust_env=False
        ) as client:
            app = self.app or Gate(client, self._bounds, **self._options)
            with listener.bound("127.0.0.1", 0) as bound:
                self.port = bound.getsockname()[1]
                # It listens already; who connects before it accepts is kept waiting.
                self._loop.call_soon(self._ready.set)
                await listener.serve(app, bound, self.identity.context(), self._bounds, self._stop.wait())
        server.should_exit = True
        await serving

    def _time(self) -> float:
        return self._now if self._timeless else self._now + time.monotonic() - self._thawed

    @property
    def trust(self) -> ssl.SSLContext:
        """A client's context that trusts this gate alone."""
        return ssl.create_default_context(cadata=self.identity.certificate.decode())

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}", verify=self.trust, trust_env=False, timeout=20
        )

    def connect(self, source: str = "127.0.0.1") -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), 10, source_address=(source, 0))
        return self.trust.wrap_socket(plain, server_hostname="127.0.0.1")

    def raw(self, request: bytes, *, source: str = "127.0.0.1") -> bytes:
        """What the gate answers to these very bytes, until it ends the connection or is silent."""
        with self.connect(source) as connection:
            connection.sendall(request)
            return everything(connection)

    def healthy(self) -> bool:
        with self.client() as client:
            return client.get("/health").json() == {"status": "ok"}


def everything(connection: socket.socket, silence: float = 60.0) -> bytes:
    """What comes until the other side ends the connection, or says nothing for ``silence`` seconds."""
    connection.settimeout(silence)
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except OSError:
        pass
    return received


def ended(connection: socket.socket) -> bool:
    """Whether the other side has ended the connection, as far as is known here and now."""
    connection.settimeout(0.0)
    try:
        return not connection.recv(65536)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


def _no_signals() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def post(path: str = ALLOWED_PATH, body: bytes = b"", *, head: str = "", version: str = "1.1") -> bytes:
    """A request's bytes, with its length."""
    line = f"POST {path} HTTP/{version}\r\nHost: gate\r\n{head}Content-Length: {len(body)}\r\n\r\n"
    return line.encode("latin-1") + body


def status(answer: bytes) -> int:
    """The status of the first answer in the bytes."""
    return int(answer.split(b" ", 2)[1])


def superlink_routes() -> set[tuple[str, str]]:
    """Every method and path that Flower's SuperLink serves, by its own application."""
    from fastapi.routing import iter_route_contexts
    from flwr.superlink.main import create_app

    return {
        (method, re.sub(r"\{.*?\}", "x", context.path))
        for context in iter_route_contexts(create_app().routes)
        for method in context.route.methods
    }


def passed_on(routes: set[tuple[str, str]]) -> set[tuple[str, str]]:
    return {("POST", path.decode()) for path in app.ALLOWED} & routes
