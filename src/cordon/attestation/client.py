"""Before a site connects: fetch the aggregator's evidence on a TLS connection, and verify it.

The certificate of that connection is trusted because the evidence names its key, and for no other
reason: no public authority is asked.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from secrets import token_bytes

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cordon import foreign
from cordon.attestation.binding import NONCE_BYTES, report_data
from cordon.attestation.certificates import load
from cordon.attestation.evidence import JSON_BYTES, Evidence
from cordon.attestation.policy import Policy
from cordon.attestation.verified import Verified
from cordon.attestation.verify import verify
from cordon.errors import AttestationError, Unreachable
from cordon.transport.address import split_address
from cordon.transport.proxy import Proxy

TIMEOUT = 30.0
PATH = "/attestation"
SAID_BYTES = 300
# What a server says that has too much to do, or whose upstream has; and that took too long.
LATER = frozenset({408, 429, 502, 503, 504})


class BrokenOff(AttestationError):
    """The exchange did not come to its end, so nothing was judged; the same may be asked again."""


@dataclass(frozen=True)
class Attested:
    """The certificate (PEM) of a connection, and what was verified about who holds its key."""

    certificate: bytes
    found: Verified


def fetch(address: str, policy: Policy, *, timeout: float = TIMEOUT, proxy: Proxy | None = None) -> Attested:
    """The certificate of the attested aggregator at ``address``, to be its client's only root.

    ``address`` is HOST:PORT; ``timeout`` (seconds) bounds the whole exchange; ``proxy`` stands in for the
    environment's. Raises AttestationError when the evidence is not good enough for ``policy`` or not of this
    connection (BrokenOff where it did not come to its end), Unreachable when there is no TLS server, or one
    that has too much to do.
    """
    host, port = split_address(address)
    proxy = proxy or Proxy.of_environment(host)
    nonce = token_bytes(NONCE_BYTES)
    deadline = time.monotonic() + timeout
    with _connected(host, port, timeout, proxy) as (connection, peer):
        try:
            body = _answer(connection, nonce, address)
        except AttestationError:
            if time.monotonic() < deadline:
                raise
        if time.monotonic() >= deadline:  # what is cut off by then may look like the end of an answer
            raise BrokenOff(f"{address}: gave no evidence within {timeout:g} seconds. Try again.")
    key = load(peer).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    found = verify(Evidence.from_json(body), policy, report_data=report_data(key, nonce))
    return Attested(ssl.DER_cert_to_PEM_cert(peer).encode(), found)


def _answer(connection: http.client.HTTPSConnection, nonce: bytes, address: str) -> bytes:
    try:
        connection.request("GET", f"{PATH}?nonce={nonce.hex()}", headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read(JSON_BYTES + 1)
        # A reader that is cut short ends like one at the end of a body without a length.
        complete = response.isclosed() or len(body) > JSON_BYTES
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BrokenOff(f"{address}: gave no evidence, but broke off: {_said(error)}. Try again.") from None
    if response.status in LATER:
        raise Unreachable(
            f"{address}: has no evidence at the moment (HTTP status {response.status}). Try again."
        )
    if response.status != http.client.OK:
        said = foreign.words(body[:SAID_BYTES].decode("utf-8", "replace"))
        raise AttestationError(
            f"{address}: gave no evidence but HTTP status {response.status}: '{said}'. "
            "Check the address; its operator must give --evidence."
        )
    if not complete:
        raise BrokenOff(f"{address}: broke off in the middle of its evidence. Try again.")
    return body


@contextmanager
def _connected(
    host: str, port: int, timeout: float, proxy: Proxy | None
) -> Iterator[tuple[http.client.HTTPSConnection, bytes]]:
    """A TLS connection that is cut after ``timeout`` seconds, and its peer's certificate (DER)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    first = (proxy.host, proxy.port) if proxy else (host, port)
    connection = http.client.HTTPSConnection(*first, timeout=timeout, context=context)
    if proxy:
        connection.set_tunnel(host, port, proxy.headers)
    connection.auto_open = 0  # a second connection may have another peer
    watch = threading.Timer(timeout, _cut, (connection,))
    watch.daemon = True
    watch.start()
    try:
        try:
            connection.connect()
            peer = connection.sock.getpeercert(binary_form=True)
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise Unreachable(
                f"{host}:{port}: no aggregator there by TLS 1.3: {_said(error)}. Check the address and the "
                "network, and HTTPS_PROXY if it must go through one."
            ) from None
        if not peer:
            raise Unreachable(f"{host}:{port}: shows no certificate. Check the address.")
        yield connection, peer
    finally:
        watch.cancel()
        connection.close()


def _cut(connection: http.client.HTTPSConnection) -> None:
    held = connection.sock
    if held is not None:
        # The socket itself: ssl's own shutdown would wait for what the peer does not send.
        with suppress(OSError):
            socket.socket.shutdown(held, socket.SHUT_RDWR)


def _said(error: BaseException) -> str:
    return foreign.words(error, SAID_BYTES) or type(error).__name__
