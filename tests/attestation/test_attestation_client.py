"""Tests of cordon.attestation.client against small TLS servers, honest and not."""

from __future__ import annotations

import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from attestation_lab import (
    Answer,
    Identity,
    authority,
    evidence_of,
    identity,
    policy_of,
    send,
    serving,
)
from cordon.attestation import client
from cordon.attestation.emulator import Emulator
from cordon.attestation.evidence import JSON_BYTES
from cordon.attestation.policy import Policy
from cordon.errors import AttestationError, Unreachable, UserError


@pytest.fixture
def held(tmp_path: Path) -> Identity:
    return identity(tmp_path / "aggregator.pem")


@pytest.fixture
def emulator() -> Emulator:
    return Emulator(authority())


@pytest.fixture
def policy() -> Policy:
    return policy_of(authority())


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


def refused(held: Identity, answer: Answer, policy: Policy, timeout: float = 10) -> str:
    with serving(held, answer) as address, pytest.raises(AttestationError) as caught:
        client.fetch(address, policy, timeout=timeout)
    return str(caught.value)


def test_the_attested_certificate_is_returned(held: Identity, emulator: Emulator, policy: Policy) -> None:
    nonces = []

    def answer(handler: BaseHTTPRequestHandler, nonce: bytes) -> None:
        nonces.append(nonce)
        send(handler, evidence_of(emulator, held, nonce))

    with serving(held, answer) as address:
        assert client.fetch(address, policy).certificate == held.pem
        assert client.fetch(address, policy).found.test_only
    assert len(set(nonces)) == 2
    assert {len(nonce) for nonce in nonces} == {32}


def test_a_relay_in_the_middle_is_refused(
    tmp_path: Path, held: Identity, emulator: Emulator, policy: Policy
) -> None:
    """The relay passes each nonce to the true aggregator, and its evidence back, under its own TLS key."""
    relay = identity(tmp_path / "relay.pem")

    def honest(handler: BaseHTTPRequestHandler, nonce: bytes) -> None:
        send(handler, evidence_of(emulator, held, nonce))

    with serving(held, honest) as true_address:

        def relayed(handler: BaseHTTPRequestHandler, nonce: bytes) -> None:
            context = ssl._create_unverified_context()
            upstream = client.http.client.HTTPSConnection(true_address, context=context)
            upstream.request("GET", f"/attestation?nonce={nonce.hex()}")
            send(handler, upstream.getresponse().read())
            upstream.close()

        assert client.fetch(true_address, policy).certificate == held.pem
        assert "not about this connection" in refused(relay, relayed, policy)


def test_a_swapped_key_and_a_wrong_nonce_are_refused(
    tmp_path: Path, held: Identity, emulator: Emulator, policy: Policy
) -> None:
    other = identity(tmp_path / "other.pem")
    old = evidence_of(emulator, held, bytes(32))
    answers: list[Answer] = [
        lambda handler, nonce: send(handler, evidence_of(emulator, other, nonce)),
        lambda handler, nonce: send(handler, evidence_of(emulator, held, bytes(reversed(nonce)))),
        lambda handler, nonce: send(handler, old),
    ]
    for answer in answers:
        assert "not about this connection" in refused(held, answer, policy)


def test_the_policy_is_enforced(held: Identity, policy: Policy) -> None:
    def answer(handler: BaseHTTPRequestHandler, nonce: bytes) -> None:
        send(handler, evidence_of(Emulator(authority(), debug=True), held, nonce))

    assert "may be debugged" in refused(held, answer, policy)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda handler, _: send(handler, b"hello"), "is not JSON"),
        (lambda handler, _: send(handler, b"{}"), "not one object"),
        (lambda handler, _: send(handler, b" " * (JSON_BYTES + 1)), "of which 1 to"),
        (lambda handler, _: send(handler, b" " * 9_000_000), "of which 1 to"),
        (lambda handler, _: send(handler, b"no such page", 404), "HTTP status 404: 'no such page'"),
        (lambda handler, _: send(handler, b"x" * 9_000_000, 500), "HTTP status 500"),
        (lambda handler, _: send(handler, b"{}", 302), "HTTP status 302"),
        (lambda handler, _: send(handler, b"{", length=100), "broke off in the middle"),
        (lambda handler, _: handler.wfile.write(b"\0\1\2\r\n\r\n"), "gave no evidence"),
        (
            lambda handler, _: handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 9999),
            "gave no evidence",
        ),
        (lambda handler, _: handler.wfile.write(b"HTTP/1.1 200 " + b"O" * 99999), "gave no evidence"),
        (lambda handler, _: handler.connection.close(), "gave no evidence"),
    ],
)
def test_an_answer_that_is_no_evidence_is_refused(
    held: Identity, policy: Policy, answer: Answer, reason: str
) -> None:
    assert reason in refused(held, answer, policy)


@pytest.mark.parametrize(
    "start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"HTTP/1.1 200 OK\r\n"]
)
def test_a_slow_server_is_cut_off(held: Identity, policy: Policy, start: bytes) -> None:
    """One byte each tenth of a second: no single read times out, the whole exchange does."""

    def drip(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.wfile.write(start)
        for _ in range(100):
            handler.wfile.write(b"x")
            time.sleep(0.1)

    began = time.monotonic()
    assert "gave no evidence within 0.8 seconds" in refused(held, drip, policy, timeout=0.8)
    assert 0.7 < time.monotonic() - began < 3


@pytest.mark.parametrize("status", [503, 429, 504, 502])
def test_a_server_that_has_too_much_to_do_is_asked_again(held: Identity, policy: Policy, status: int) -> None:
    """Whoever floods the aggregator must not make sites take it for another one, and give up."""
    later = pytest.raises(Unreachable, match=f"HTTP status {status}.*Try again")
    with serving(held, lambda handler, _: send(handler, b"{}", status)) as address, later:
        client.fetch(address, policy)


def test_no_server_is_unreachable(policy: Policy) -> None:
    with pytest.raises(Unreachable, match="no aggregator there by TLS"):
        client.fetch("127.0.0.1:9", policy, timeout=2)
    plain = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    with pytest.raises(Unreachable, match="no aggregator there by TLS"):
        client.fetch(f"127.0.0.1:{plain.server_port}", policy, timeout=2)
    plain.shutdown()
    plain.server_close()


@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:0", "host:65536", "host:x", "host:²"])
def test_a_malformed_address_is_refused(address: str, policy: Policy) -> None:
    with pytest.raises(UserError, match="HOST:PORT"):
        client.fetch(address, policy)


def test_a_proxy_of_the_environment_is_used(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_port}")
    with pytest.raises(Unreachable, match="403"):
        client.fetch("aggregator.invalid:9092", policy, timeout=2)
    assert asked == ["aggregator.invalid:9092"]
    proxy.shutdown()
    proxy.server_close()
