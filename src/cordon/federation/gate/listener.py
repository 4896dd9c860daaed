"""The gate's TLS listener: uvicorn's HTTP/1.1 connections, with the bounds that uvicorn lacks."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from cordon.console.progress import Plain
from cordon.errors import Unreachable, UserError
from cordon.federation.credentials import self_signed
from cordon.federation.gate.limits import Bounds, client_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp

LINES_PER_MINUTE = 120
GRACE = 2.0
# Handshakes under way, and what the process has open anyway.
OTHER_FILES = 1024

log = logging.getLogger("cordon.gate")


@dataclass(frozen=True)
class TLSIdentity:
    """A certificate with its chain and its private key, both PEM."""

    certificate: bytes
    key: bytes

    @classmethod
    def given(cls, certificate: str | None, key: str | None) -> Self | None:
        """An operator's; None where there is none."""
        if (certificate is None) != (key is None):
            raise UserError("a certificate needs its key. Give --certificate and --key, or neither.")
        if certificate is None or key is None:
            return None
        return cls(Path(certificate).read_bytes(), Path(key).read_bytes())

    @classmethod
    def made(cls, host: str, names: Sequence[str]) -> Self:
        """A new one, for the host that is listened on and the ``names`` that sites know it by."""
        if not names and host in {"", "0.0.0.0", "::", "[::]"}:
            raise UserError(f"no site can ask for {host!r}. Give the --name that sites connect to.")
        return cls(*self_signed(names or [host]))

    @property
    def spki(self) -> bytes:
        """The public key as SubjectPublicKeyInfo (DER), to which evidence is bound."""
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        leaf = x509.load_pem_x509_certificates(self.certificate)[0]
        return leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def context(self) -> ssl.SSLContext:
        """TLS 1.3 with this identity. The key reaches OpenSSL through memory: it is in no file system."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb") as memory:
            memory.write(self.key + b"\n" + self.certificate)
            memory.flush()
            try:
                context.load_cert_chain(f"/proc/self/fd/{descriptor}")
            except ssl.SSLError as error:
                raise UserError(
                    f"the certificate and key cannot be used ({error.reason}). Give a PEM pair that match."
                ) from error
        return context


class BoundedConnection(H11Protocol):
    """A connection that ends where its client is one too many, or lets the gate wait."""

    def __init__(self, bounds: Bounds, clients: Counter[str], **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._bounds = bounds
        self._clients = clients
        self._end: asyncio.TimerHandle | None = None
        self._waits = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._client = client_of(self.client)
        self._clients[self._client] += 1
        if (
            len(self.connections) > self._bounds.connections
            or self._clients[self._client] > self._bounds.connections_per_client
        ):
            log.warning("refused a connection of %s: too many", self._client)
            transport.abort()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients[self._client] -= 1
        if not self._clients[self._client]:
            del self._clients[self._client]
        self._stop_watch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        self._stop_watch()
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; where an answer is on its way already, only end the connection."""
        log.warning("refused %s with 400: no HTTP", self._client)
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            super().send_400_response(msg)
        else:
            self.transport.abort()
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _watch(self) -> None:
        # The whole head must come in time, not its next byte; a closing connection must close in time. The
        # gate bounds each request itself, except where its client does not even take the refusal.
        waits = self.conn.their_state is h11.IDLE or self.transport.is_closing()
        if self._end is None or waits != self._waits:
            self._stop_watch()
            seconds = self._bounds.head_time if waits else self._bounds.request_time + GRACE
            self._end = self.loop.call_later(seconds, self.transport.abort)
            self._waits = waits

    def _stop_watch(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens on ``host:port``; Unreachable where that is taken."""
    host = host.strip("[]")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise Unreachable(
            f"cannot listen on {host}:{port} ({error.strerror}). Set --aggregator_port to a free port."
        ) from error


async def serve(
    app: ASGIApp, listening: socket.socket, context: ssl.SSLContext, bounds: Bounds, ended: Awaitable[object]
) -> None:
    """Serve ``app`` over TLS until ``ended``.

    uvicorn's own server gives a TLS handshake a minute, so its connections are served here without it.
    """
    config = uvicorn.Config(
        app, lifespan="off", ws="none", proxy_headers=False, server_header=False, log_config=None,
        access_log=False, log_level="critical", h11_max_incomplete_event_size=bounds.head,
        timeout_keep_alive=int(bounds.head_time),
    )  # fmt: skip
    config.load()
    _allow_files(bounds.connections + bounds.upstream_connections + OTHER_FILES)
    state, clients = ServerState(), Counter[str]()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedConnection(bounds, clients, config=config, server_state=state, app_state={}),
        sock=listening, ssl=context,
        ssl_handshake_timeout=bounds.handshake_time, ssl_shutdown_timeout=GRACE,
    )  # fmt: skip
    log.warning("listening on %s:%d", *listening.getsockname()[:2])
    try:
        await ended
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=GRACE)


def _allow_files(number: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def ended_by_signal() -> Awaitable[object]:
    """What is done when the process is told to end."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop.wait()


def log_sparingly() -> None:
    """Log to standard error, so few lines a minute that no flood of requests fills the disk."""
    handler = logging.StreamHandler()
    handler.addFilter(Sparse(LINES_PER_MINUTE))
    handler.setFormatter(Plain("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class Sparse(logging.Filter):
    """Lets ``lines`` records a minute through, and says after it how many it left out."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self._lines = lines
        self._minute = -1
        self._seen = 0

    def filter(self, record: logging.LogRecord) -> bool:
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            left_out = max(self._seen - self._lines, 0)
            self._minute, self._seen = minute, 0
            if left_out:
                record.msg = f"{left_out} lines left out; {record.msg}"
        self._seen += 1
        return self._seen <= self._lines
