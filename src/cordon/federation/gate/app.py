"""The aggregator's only face to the world: a SuperNode's paths, health and evidence, and nothing else.

Flower's SuperLink serves three APIs on one port, and whoever reaches its Control API runs Python at every
site. So the SuperLink listens on loopback, and this process terminates TLS in front of it, with a key that
it makes itself or an operator's. Run as ``python -m cordon.federation.gate.app OPTIONS``.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from cordon.console.commands import EXISTING, command
from cordon.errors import UserError
from cordon.federation.flower.signatures import authentic, enrolled_keys
from cordon.federation.gate.limits import Bounds, TokenBucket, Turns, client_of
from cordon.files import written_beside

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from cordon.attestation.evidence import Evidence
    from cordon.federation.flower.signatures import Enrolled

# What a SuperNode with a key calls. It never calls register-node and unregister-node: identities are the
# operator's to add and to remove (a SuperLink with SuperNode authentication refuses both as well).
ALLOWED = frozenset(
    f"/v1/fleet/{name}".encode()
    for name in (
        "activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages",
        "get-run", "get-fab", "pull-object", "push-object", "confirm-message-received",
    )
)  # fmt: skip
SENT = (
    "content-type", "accept", "flwr-public-key", "flwr-signature", "flwr-timestamp",
    "flwr-package-name", "flwr-package-version", "flwr-component-name",
)  # fmt: skip
RETURNED = ("content-type", "content-length", "flwr-version-incompatibility-message")
NONCE = re.compile(rb"nonce=([0-9a-fA-F]{64})")
LOGGED = 80

log = logging.getLogger("cordon.gate")


class RequestRefused(Exception):
    """A request that is answered with ``status`` and ``reason`` and goes no further."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Gate:
    """An ASGI application that passes a SuperNode's calls on to ``upstream`` and refuses all others.

    ``enrolled`` holds the public keys by their PEM: other keys are refused before their body is read, and
    so is what was not signed for the gate's own TLS key ``spki`` (DER), if one is given; with None the
    SuperLink alone decides. ``evidence`` makes the answer (JSON) for a nonce of 32 bytes;
    ``clock``, in seconds, is what clients' rates are counted by.
    """

    def __init__(
        self, upstream: httpx.AsyncClient, bounds: Bounds, *,
        enrolled: Enrolled | None = None, spki: bytes = b"",
        evidence: Callable[[bytes], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._upstream = upstream
        self._bounds = bounds
        self._enrolled = enrolled
        self._spki = spki
        self._evidence = evidence
        self._clients = TokenBucket(bounds.rate, bounds.burst, clock)
        self._evidence_calls = TokenBucket(bounds.evidence_rate, bounds.evidence_burst, clock)
        # Each piece of evidence is a call of the firmware, which answers some at a time.
        self._firmware = ThreadPoolExecutor(bounds.evidence_at_once)
        self._turns = Turns(bounds.evidence_at_once, bounds.evidence_waiting)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, whatever it is."""
        request = _Exchange(scope, receive, send)
        try:
            async with asyncio.timeout(self._bounds.body_time) as request.deadline:
                await self._answer(request)
        except ClientDisconnect:
            pass
        except RequestRefused as refusal:
            await request.refuse(refusal)
        except TimeoutError:
            late = (504, "the SuperLink is late") if request.complete else (408, "the request is late")
            await request.refuse(RequestRefused(*late))
        except Exception as error:
            if request.answered:
                # asyncio's TLS fails to close what the client has closed just then (CPython 3.11).
                return
            log.error("failed at %s: %s: %a", request.shown, type(error).__name__, str(error)[:LOGGED])
            await request.refuse(RequestRefused(500, "the gate failed"))

    async def _answer(self, request: _Exchange) -> None:
        if not self._clients.take(client_of(request.scope["client"])):
            # A SuperNode tries again after a 503, and gives up at a 429.
            raise RequestRefused(503, "too many requests from this address; try again later")
        if sum(map(len, chain(*request.scope["headers"], [request.scope["raw_path"]]))) > self._bounds.head:
            raise RequestRefused(431, f"a request's head may have {self._bounds.head} bytes")
        # The path as it stood on the wire: nothing is decoded, joined or corrected before it is compared.
        method, path, query = request.method, request.scope["raw_path"], request.scope["query_string"]
        if request.scope["http_version"] != "1.1" or "upgrade" in request.headers:
            raise RequestRefused(403, "plain HTTP/1.1 only")
        if "transfer-encoding" in request.headers:
            raise RequestRefused(411, "give the body's length")
        if method == "POST" and path in ALLOWED and not query:
            await self._pass_on(request, path.decode())
        elif method == "GET" and request.headers.get("content-length", "0") == "0":
            if path == b"/health" and not query:
                # The time, so that a site can see whether its clock will do.
                told = {"date": formatdate(usegmt=True)}
                await request.answer(JSONResponse({"status": "ok"}, headers=told))
            elif path == b"/attestation":
                await request.answer(await self._attest(query, client_of(request.scope["client"])))
            else:
                raise RequestRefused(403, "not for the world")
        else:
            raise RequestRefused(403, "not for the world")

    async def _attest(self, query: bytes, client: str) -> Response:
        if self._evidence is None:
            raise RequestRefused(404, "this aggregator runs without attestation: it has no evidence to show")
        if not (nonce := NONCE.fullmatch(query)):
            raise RequestRefused(400, "ask with ?nonce= and 32 bytes in hex")
        if not self._evidence_calls.take(client) or self._turns.full:
            raise RequestRefused(503, "too many ask for evidence; try again later")
        running = asyncio.get_running_loop()
        try:
            async with self._turns.turn(client):
                text = await running.run_in_executor(
                    self._firmware, self._evidence, bytes.fromhex(nonce[1].decode())
                )
        except Exception as error:
            log.error("no evidence: %s: %a", type(error).__name__, str(error))
            raise RequestRefused(503, "no evidence at the moment; the aggregator's log says why") from error
        return Response(text, media_type="application/json")

    async def _pass_on(self, request: _Exchange, path: str) -> None:
        lengths = request.headers.getlist("content-length")
        if len(lengths) != 1:
            raise RequestRefused(411, "give the body's length")
        if int(lengths[0]) > self._bounds.body:
            raise RequestRefused(413, f"a body may have {self._bounds.body} bytes")
        sent = {name: request.headers.getlist(name) for name in SENT if name in request.headers}
        if any(len(values) > 1 for values in sent.values()):
            raise RequestRefused(403, "a header stands twice")
        if self._enrolled is not None and not authentic(
            request.headers, self._enrolled, spki=self._spki, path=path
        ):
            wrong = "not enrolled here, or its clock is wrong, or it signed for another aggregator"
            raise RequestRefused(401, f"this SuperNode is {wrong}")
        passed = self._upstream.build_request(
            "POST", path, content=self._body(request),
            headers={name: values[0] for name, values in sent.items()} | {"content-length": lengths[0]},
        )  # fmt: skip
        try:
            response = await self._upstream.send(passed, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise RequestRefused(503, "the SuperLink cannot be reached; try again later") from error
        except httpx.ReadTimeout as error:
            raise RequestRefused(504, "the SuperLink is late") from error
        except httpx.TransportError as error:
            raise RequestRefused(502, "the SuperLink gave no answer; try again") from error
        try:
            if response.status_code >= 500:
                raise RequestRefused(
                    response.status_code, "the SuperLink could not do this; its log says why"
                )
            headers = {name: response.headers[name] for name in RETURNED if name in response.headers}
            await request.answer(StreamingResponse(response.aiter_raw(), response.status_code, headers))
        finally:
            await response.aclose()

    async def _body(self, request: _Exchange) -> AsyncIterator[bytes]:
        async for chunk in request.stream():
            yield chunk
        request.complete = True
        clock = asyncio.get_running_loop().time()
        request.deadline.reschedule(clock + self._bounds.request_time - self._bounds.body_time)


class _Exchange(Request):
    """A request, whether it is ``complete``, and whether all of its answer is on its way (``answered``)."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, self._note_start)
        self._to_client = send
        self._started = False
        self.complete = False
        self.answered = False
        self.deadline: asyncio.Timeout

    @property
    def shown(self) -> str:
        """The request for the log: cut short, and escaped."""
        host = (self.scope["client"] or ("?",))[0]
        target = self.scope["raw_path"][:LOGGED].decode("latin-1")
        return f"{host} {self.method[:LOGGED]!a} {target!a}"

    async def answer(self, response: Response) -> None:
        await response(self.scope, self.receive, self._note_start)

    async def refuse(self, refusal: RequestRefused) -> None:
        """Answer with the refusal and end the connection; mid-answer there is only the second."""
        log.warning("refused %s with %d: %s", self.shown, refusal.status, refusal)
        if self._started:
            raise refusal
        headers = {"connection": "close"} | ({"retry-after": "1"} if refusal.status == 503 else {})
        await self.answer(JSONResponse({"detail": str(refusal)}, refusal.status, headers))

    async def _note_start(self, message: Any) -> None:
        self._started = True
        self.answered = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._to_client(message)


def evidence_source(provider: str, spki: bytes) -> Callable[[bytes], str] | None:
    """What makes the evidence that binds a nonce to the TLS key ``spki`` (DER); None without a provider.

    ``provider`` is ``guest`` (this confidential VM's firmware), ``guest:FILE`` with the VCEK (DER) where the
    host gives none, ``emulator:FOLDER`` (for tests) or empty.
    """
    if not provider:
        return None
    from cordon.attestation.binding import report_data

    kind, _, place = provider.partition(":")
    collect: Callable[[bytes], Evidence]
    if kind == "guest":
        from cordon.attestation import guest

        collect = partial(guest.collect, certificates=(Path(place).read_bytes(),) if place else ())
    elif kind == "emulator" and place:
        from cordon.attestation.emulator import Emulator

        collect = Emulator.at(Path(place)).collect
    else:
        raise UserError(f"no evidence comes from {provider!r}. Give guest, guest:FILE or emulator:FOLDER.")
    return lambda nonce: collect(report_data(spki, nonce)).to_json()


@command()
@click.option("--address", required=True, help="host:port to listen on.")
@click.option("--upstream", required=True, help="The SuperLink's URL, on loopback.")
@click.option("--upstream_certificate", required=True, type=EXISTING, help="Its certificate (PEM).")
@click.option("--certificate", type=EXISTING, help="An operator's certificate; without it, one is made.")
@click.option("--key", type=EXISTING, help="The private key of --certificate.")
@click.option("--name", "names", multiple=True, help="Name or address that sites use, if not the host.")
@click.option(
    "--certificate_output", type=click.Path(dir_okay=False), help="The certificate goes here, once we listen."
)
@click.option("--enrolment", type=EXISTING, help="Enrolled sites; other keys are refused at once.")
@click.option("--evidence", default="", help="guest, guest:VCEK or emulator:FOLDER; none: no attestation.")
@click.option("--max_body", default=Bounds.body, show_default=True, help="Largest body of a request, bytes.")
def main(address: str, upstream: str, upstream_certificate: str, certificate: str | None, key: str | None,
         names: tuple[str, ...], certificate_output: str | None, enrolment: str | None, evidence: str,
         max_body: int) -> None:  # fmt: skip
    """Stand between the world and a SuperLink until a signal ends it."""
    from cordon.federation.gate import listener

    host, _, port = address.rpartition(":")
    identity = listener.TLSIdentity.given(certificate, key) or listener.TLSIdentity.made(host, names)
    bounds = Bounds(body=max_body)
    options: dict[str, Any] = {
        "enrolled": enrolled_keys(Path(enrolment)) if enrolment else None,
        "spki": identity.spki,
        "evidence": evidence_source(evidence, identity.spki),
    }
    listener.log_sparingly()

    async def run() -> None:
        client = upstream_client(upstream, Path(upstream_certificate).read_bytes(), bounds)
        async with client:
            gate = Gate(client, bounds, **options)
            with listener.bound(host, int(port)) as bound:
                if certificate_output:
                    with written_beside(certificate_output) as whole:
                        whole.write_bytes(identity.certificate)
                await listener.serve(gate, bound, identity.context(), bounds, listener.ended_by_signal())

    asyncio.run(run())


def upstream_client(url: str, certificate: bytes, bounds: Bounds) -> httpx.AsyncClient:
    """A client of the SuperLink at ``url`` that trusts its ``certificate`` (PEM) and nothing else."""
    import ssl

    return httpx.AsyncClient(
        base_url=url,
        verify=ssl.create_default_context(cadata=certificate.decode()),
        trust_env=False,
        timeout=httpx.Timeout(bounds.upstream_time, connect=5, pool=5),
        # The SuperLink ends a connection after five idle seconds; ours are gone before that.
        limits=httpx.Limits(max_connections=bounds.upstream_connections, keepalive_expiry=2),
    )


if __name__ == "__main__":
    main()
