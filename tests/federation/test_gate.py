"""The gate: what a SuperNode asks passes within bounds, and nothing else does."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import re
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cordon.attestation.client import fetch
from cordon.attestation.emulator import Emulator
from cordon.attestation.policy import Policy
from cordon.errors import AttestationError, UserError
from cordon.federation.flower import processes
from cordon.federation.gate import app, listener
from cordon.federation.gate.limits import Bounds, TokenBucket, client_of
from served_gate import (
    ALLOWED_PATH,
    ServedGate,
    ended,
    everything,
    passed_on,
    post,
    status,
    superlink_routes,
)  # fmt: skip

pytestmark = pytest.mark.timeout(120)

BOUNDS = Bounds(body=100_000, head_time=1.0, body_time=1.5, upstream_time=1.0, handshake_time=1.0)
FUZZ_SECONDS = float(os.environ.get("CORDON_FUZZ_SECONDS", "5"))


@pytest.fixture(scope="module")
def shared():
    with ServedGate(BOUNDS) as served:
        yield served


@pytest.fixture
def served(shared):
    shared.upstream.__init__()
    yield shared
    assert shared.healthy()


# What passes


def test_the_allowed_paths_are_those_that_flowers_supernode_calls_with_a_key():
    from flwr.supernode import fleet_http_client

    called = set(re.findall(r'"(/v1/fleet/[^"]+)"', inspect.getsource(fleet_http_client)))
    identities = {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}
    assert {path.decode() for path in app.ALLOWED} == called - identities


def test_a_call_passes_unchanged_with_the_headers_that_it_needs_and_no_other(served):
    body = os.urandom(BOUNDS.body)
    served.upstream.reply = lambda body: (200, body[::-1])
    with served.client() as client:
        for path in sorted(app.ALLOWED):
            answer = client.post(
                path.decode(), content=body, headers={
                    "content-type": "application/x-protobuf", "flwr-public-key": "key",
                    "flwr-task-token": "token", "x-forwarded-for": "127.0.0.1", "cookie": "a=b",
                    "authorization": "Basic YTpi", "content-encoding": "gzip", "flwr-superexec-ts": "1",
                },
            )  # fmt: skip
            assert (answer.status_code, answer.content) == (200, body[::-1])
            assert set(answer.headers) == {"content-type", "content-length"}
    assert [path for _, path, _, _ in served.upstream.seen] == [p.decode() for p in sorted(app.ALLOWED)]
    for method, _, headers, received in served.upstream.seen:
        assert (method, received) == ("POST", body)
        assert headers["flwr-public-key"] == "key"
        assert set(headers) <= {
            "host", "content-type", "content-length", "accept", "accept-encoding", "connection", "user-agent",
            "flwr-public-key",
        }  # fmt: skip


def test_what_the_superlink_refuses_a_supernode_hears(served):
    served.upstream.reply = lambda body: (400, b'{"code": 2004}')
    with served.client() as client:
        answer = client.post(ALLOWED_PATH)
    assert (answer.status_code, answer.content) == (400, b'{"code": 2004}')


# What does not


@pytest.mark.stress
def test_no_other_route_of_the_superlink_is_reached(served):
    routes = superlink_routes()
    assert len(routes) > 80
    assert len(passed_on(routes)) == len(app.ALLOWED)
    refused = routes - passed_on(routes) - {("GET", "/health")}
    assert ("POST", "/v1/control/start-run") in refused
    with served.client() as client:
        for method, path in refused:
            answer = client.request(method, path, content=b"x" if method == "POST" else None)
            assert answer.status_code == 403, (method, path)
            assert method == "HEAD" or set(answer.json()) == {"detail"}
    assert served.upstream.seen == []


@pytest.mark.parametrize(
    "target",
    [
        "//v1/fleet/pull-messages", "/v1//fleet/pull-messages", "/v1/fleet/../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run", "/v1/fleet/pull-messages/../../control/start-run",
        "/v1/fleet/pull-messages/", "/v1/fleet/pull-messages.", "/v1/fleet/pull-messages%00",
        "/v1/fleet/pull-messages;x", "/V1/fleet/pull-messages", "/v1/Fleet/pull-messages",
        "/v1/fleet/Pull-Messages", "/v1/fleet/pull%2dmessages", "/v1%2ffleet%2fpull-messages",
        "/v1/fleet/pull-messages?x=1", "/v1/fleet/pull-messages?/v1/control/start-run",
        "/v1/fleet/pull-messages#x", "http://gate/v1/fleet/pull-messages", "https://127.0.0.1/v1/control/x",
        "\\v1\\fleet\\pull-messages", "/v1/fleet/", "/v1/fleet", "/", "*", "v1/fleet/pull-messages",
        "/docs", "/openapi.json", "/v1/fleet/register-node", "/v1/fleet/unregister-node", "/health?x",
    ],
)  # fmt: skip
def test_a_path_that_is_not_exactly_an_allowed_one_is_refused(served, target):
    assert status(served.raw(post(target))) == 403
    assert served.upstream.seen == []


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (post(version="1.0"), 403),
        (post(version="0.9"), 403),
        (post(version="2.0"), 403),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 403),
        (b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: gate\r\n\r\n", 403),
        (b"GET " + ALLOWED_PATH.encode() + b" HTTP/1.1\r\nHost: gate\r\n\r\n", 403),
        (b"TRACE / HTTP/1.1\r\nHost: gate\r\n\r\n", 403),
        (post(head="Connection: Upgrade\r\nUpgrade: websocket\r\n"), 403),
        (post(head="Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"), 403),
        (b"POST /v1/fleet/pull-messages HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400),
        (post(head="Host: another\r\n"), 400),
        (post(head="Content-Length: 7\r\n"), 400),
        (post(head="Content-Length : 0\r\n"), 400),
        (post(head="Content-Length: -1\r\n"), 400),
        (post(head="Transfer-Encoding: chunked\r\n"), 411),
        (post(head="Transfer-Encoding: xchunked\r\n"), 400),
        (post(head="Transfer-Encoding: chunked, identity\r\n"), 400),
        (post(head="X: a\r\n folded: b\r\n Transfer-Encoding: chunked\r\n"), 200),
        (post(head="X: a\rContent-Length: 9\r\n"), 400),
        (post(head="flwr-public-key: a\r\nflwr-public-key: b\r\n"), 403),
        (b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: gate\r\n\r\n", 411),
        (post(head=f"X: {'a' * 20_000}\r\n"), 431),
        (post("/" + "a" * 20_000), 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.1\nHost: gate\n\n", 403),
    ],
)  # fmt: skip
def test_what_is_no_plain_request_is_refused(served, request_bytes, expected):
    """An obsolete folded header is one header's value, which goes no further: the SuperLink sees ours."""
    assert status(served.raw(request_bytes)) == expected
    assert [(method, path) for method, path, _, _ in served.upstream.seen] == (
        [("POST", ALLOWED_PATH)] if expected == 200 else []
    )
    assert not any("x" in headers for _, _, headers, _ in served.upstream.seen)


@pytest.mark.stress
def test_no_request_is_smuggled_behind_another(served):
    """However the framing is twisted, the SuperLink never sees a request that the gate did not judge."""
    hidden = post("/v1/control/start-run", b"x")
    chunked = b"0\r\n\r\n" + hidden
    twisted = [
        post(body=b"") + hidden,
        post(head="Transfer-Encoding: chunked\r\n", body=chunked),
        post(head="Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"") + chunked,
        post(body=hidden),
        post(head=f"Content-Length: {len(hidden)}\r\n") + hidden,
        post(head="Connection: content-length\r\n") + hidden,
        post(head="Expect: 100-continue\r\n", body=hidden),
    ]
    for request in twisted:
        served.raw(request)
    assert {path for _, path, _, _ in served.upstream.seen} == {ALLOWED_PATH}
    assert len(served.upstream.seen) == 4


# Bounds


def test_a_body_above_the_bound_is_refused_before_it_is_sent(served):
    head = post(body=b"")[:-4].replace(b"Length: 0", b"Length: %d" % (BOUNDS.body + 1)) + b"\r\n\r\n"
    assert status(served.raw(head)) == 413
    huge = post(head="Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"")
    # Few enough bytes that all are sent before the answer: whoever is still sending may miss it.
    assert status(served.raw(huge + b"ffffffffffff\r\n" + b"x" * 1000)) == 411
    assert served.upstream.seen == []


def test_a_head_without_end_is_not_read_to_its_end(served):
    """Its sender may find the connection ended before it has read why."""
    with served.connect() as connection:
        with contextlib.suppress(OSError):
            connection.sendall(post(head=f"X: {'a' * 5_000_000}\r\n"))
        answer = everything(connection)
    assert not answer or status(answer) == 400
    assert served.upstream.seen == []


HEAD = b"POST " + ALLOWED_PATH.encode() + b" HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("sent", "drip", "bound", "told"),
    [
        (HEAD, b"X: y\r\n", BOUNDS.head_time, None),
        (post(body=b"x" * 1000)[:-900], b"x", BOUNDS.body_time, 408),
        (None, b"", BOUNDS.handshake_time, None),
        (b"GET /health HTTP/1.1\r\nHost: gate\r\n\r\n", b"", BOUNDS.head_time, 200),
    ],
    ids=["head", "body", "handshake", "no further request"],
)
def test_a_slow_client_is_cut_off_by_its_bound_whatever_it_drips(sent, drip, bound, told):
    with ServedGate(BOUNDS, timeless=True) as served:
        if sent is None:
            connection = socket.create_connection(("127.0.0.1", served.port))
        else:
            connection = served.connect()
            connection.sendall(sent)
        with connection:
            if told == 200:
                assert status(connection.recv(1000)) == told
            assert served.healthy()  # so what was sent has been read
            served.pass_time(0.6 * bound)
            if drip:
                connection.sendall(drip)
            assert served.healthy()
            assert not ended(connection)
            served.pass_time(0.6 * bound)
            if told == 408:
                connection.settimeout(60)
                assert status(connection.recv(20)) == told
                served.pass_time(BOUNDS.head_time + listener.GRACE)
            rest = everything(connection)
            assert not rest or (told == 408 and rest.endswith(b'{"detail":"the request is late"}')), rest
        assert all(len(body) < 1000 for _, _, _, body in served.upstream.seen)


def test_an_answer_that_nobody_reads_ends_with_its_connection():
    """Ten such clients hold neither the gate's memory nor its connections to the SuperLink for long."""
    with ServedGate(BOUNDS, timeless=True) as served:
        served.upstream.reply = lambda body: (200, bytes(20_000_000))
        held = [served.connect() for _ in range(10)]
        for connection in held:
            connection.sendall(post())
        for connection in held:  # its answer has begun
            connection.settimeout(60)
            assert connection.recv(1) == b"H"
        for _ in range(2):
            served.pass_time(BOUNDS.request_time + listener.GRACE)
        for connection in held:
            assert len(everything(connection)) < 20_000_000
            connection.close()
        assert served.healthy()


@pytest.mark.stress
def test_a_request_without_an_end_ends_with_its_connection():
    entered = threading.Event()

    async def never(scope: object, receive: object, send: object) -> None:
        entered.set()
        await asyncio.sleep(10_000)

    served = ServedGate(BOUNDS, timeless=True)
    served.app = never
    with served, served.connect() as connection:
        connection.sendall(post())
        assert entered.wait(60)
        served.pass_time(BOUNDS.request_time)
        assert not ended(connection)
        served.pass_time(listener.GRACE + 0.1)
        assert everything(connection) == b""


@pytest.mark.stress
def test_too_many_requests_of_one_client_are_refused_and_another_is_served():
    now = [0.0]
    bounds = Bounds(rate=1, burst=20, head_time=1.0)
    with ServedGate(bounds, clock=lambda: now[0]) as served, served.client() as client:
        answers = [client.post(ALLOWED_PATH).status_code for _ in range(40)]
        assert answers == [200] * 20 + [503] * 20
        assert status(served.raw(post(), source="127.0.0.2")) == 200
        now[0] = 1.1
        assert client.post(ALLOWED_PATH).status_code == 200
        assert client.post(ALLOWED_PATH).status_code == 503


def test_a_hundred_sites_behind_one_address_that_poll_ten_times_a_second_are_all_served():
    now = [0.0]
    rate = TokenBucket(Bounds.rate, Bounds.burst, clock=lambda: now[0])
    for _ in range(100 * 50):  # a message comes to all of them at once
        assert rate.take("nat")
    for tick in range(600):
        now[0] = 1 + tick / 10
        assert all(rate.take("nat") for _ in range(100))
    assert not all(rate.take("nat") for _ in range(10_000))


def test_clients_that_ask_once_do_not_fill_the_memory():
    rate = TokenBucket(1, 2)
    for number in range(30_000):
        assert rate.take(str(number))
    assert len(rate._levels) == 10_000


def test_an_ipv6_customer_is_one_client():
    assert client_of(("2001:db8::1", 1)) == client_of(("2001:db8::ffff:1", 2)) == "2001:db8::/64"
    assert client_of(("::ffff:192.0.2.1", 1)) == client_of(("192.0.2.1", 1)) == "192.0.2.1"
    assert client_of(("fe80::1%eth0", 1)) == "fe80::/64"


def test_one_client_holds_only_so_many_connections():
    with ServedGate(Bounds(connections_per_client=5, connections=8, head_time=1.0)) as served:
        held = [served.connect() for _ in range(5)]
        with served.connect() as sixth:
            assert everything(sixth) == b""
        assert status(served.raw(post(), source="127.0.0.2")) == 200
        for connection in held:
            connection.close()
        served.reached(lambda: _served_again(served))


def _served_again(served: ServedGate) -> bool:
    try:
        return served.healthy()
    except httpx.HTTPError:  # the gate has not yet seen that the others are closed
        return False


@pytest.mark.parametrize(("inner", "outer"), [(500, 500), (503, 503)])
def test_an_inner_failure_shows_nothing_of_the_superlink(served, inner, outer):
    served.upstream.reply = lambda body: (inner, b"Traceback: /srv/superlink.db secret-of-the-superlink")
    answer = served.raw(post())
    assert status(answer) == outer
    assert b"secret" not in answer
    assert b"Traceback" not in answer


def test_a_superlink_that_hangs_or_is_gone_is_told_as_such(served):
    served.upstream.pause = 3
    assert status(served.raw(post())) == 504
    gone = ServedGate(BOUNDS)
    gone.upstream_url = f"http://127.0.0.1:{processes.free_port()}"
    with gone:
        answer = gone.raw(post())
        assert status(answer) == 503
        assert gone.upstream_url[7:].encode() not in answer


# The log


def test_a_refused_request_is_a_short_escaped_line(served, caplog):
    served.raw(post("/%1b[31m" + "a" * 500))
    served.raw(b"POST /\x1b[31m HTTP/1.1\r\nHost: gate\r\n\r\n")
    lines = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"refused 127\.0\.0\.1 'POST' '/%1b\[31ma{72}' with 403: not for the world", lines[0])
    assert lines[1] == "refused 127.0.0.1 with 400: no HTTP"


def test_a_flood_does_not_fill_the_log(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(listener.time, "monotonic", lambda: now[0])
    sparse = listener.Sparse(3)
    record = logging.makeLogRecord({"msg": "refused"})
    assert [sparse.filter(record) for _ in range(1000)] == [True] * 3 + [False] * 997
    now[0] = 61.0
    assert sparse.filter(record)
    assert record.getMessage() == "997 lines left out; refused"


# Evidence


def test_without_a_provider_there_is_no_evidence(served):
    answer = served.raw(b"GET /attestation?nonce=" + b"0" * 64 + b" HTTP/1.1\r\nHost: gate\r\n\r\n")
    assert status(answer) == 404
    assert b"without attestation" in answer


def test_evidence_is_for_the_nonce_and_its_cost_is_bounded():
    running, most, lock = [0], [0], threading.Lock()

    def evidence(nonce: bytes) -> str:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.05)
        with lock:
            running[0] -= 1
        if nonce == bytes(32):
            raise RuntimeError("firmware secret")
        return f'{{"nonce": "{nonce.hex()}"}}'

    bounds = Bounds(evidence_burst=30, evidence_rate=0.1, evidence_at_once=2)
    with ServedGate(bounds, evidence=evidence) as served, served.client() as client:
        for bad in ("", "?nonce=", "?nonce=00", "?nonce=" + "0" * 66, "?nonce=" + "g" * 64,
                    f"?nonce={'1' * 64}&x=1", f"?nonce={'1' * 64}&nonce={'1' * 64}"):  # fmt: skip
            assert client.get("/attestation" + bad).status_code == 400
        failed = client.get("/attestation?nonce=" + "0" * 64)
        assert failed.status_code == 503
        assert "secret" not in failed.text
        nonces = [os.urandom(32).hex() for _ in range(40)]
        answers: dict[str, httpx.Response] = {}

        def ask(nonce: str) -> None:
            with served.client() as one:
                answers[nonce] = one.get("/attestation", params={"nonce": nonce})

        threads = [threading.Thread(target=ask, args=(nonce,)) for nonce in nonces]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        good = {nonce: a for nonce, a in answers.items() if a.status_code == 200}
        assert all(answer.json() == {"nonce": nonce} for nonce, answer in good.items())
        assert len(good) == 29
        assert [a.status_code for a in answers.values()].count(503) == 11
        assert most[0] == 2


def test_who_asks_for_evidence_without_end_keeps_no_other_out():
    """One address asks as often as it can; another, once, is answered before what that one waits for."""
    answered: list[bytes] = []

    def evidence(nonce: bytes) -> str:
        time.sleep(0.01)
        answered.append(nonce)
        return "{}"

    bounds = Bounds(evidence_burst=150, evidence_rate=0.1, evidence_at_once=1)
    with ServedGate(bounds, evidence=evidence) as served:

        def ask(first: int, source: str) -> int:
            nonce = (bytes([first]) * 32).hex().encode()
            request = b"GET /attestation?nonce=%s HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n"
            return status(served.raw(request % nonce, source=source))

        with ThreadPoolExecutor(100) as flood:
            told = [flood.submit(ask, 1, "127.0.0.2") for _ in range(200)]
            served.reached(lambda: len(answered) > 5)
            assert ask(2, "127.0.0.3") == 200
            assert answered.count(bytes([1]) * 32) < 150
        statuses = [future.result() for future in told]
        assert statuses.count(200) == 150
        assert statuses.count(503) == 50


@pytest.mark.stress
def test_five_hundred_sites_that_start_together_all_get_in(tmp_path):
    """They share an address, as behind a hospital network's, and ask at once."""
    identity = listener.TLSIdentity.made("127.0.0.1", ())
    machine = Emulator.at(tmp_path)
    served = ServedGate(Bounds(), evidence=app.evidence_source(f"emulator:{tmp_path}", identity.spki))
    served.identity = identity
    policy = Policy.read(machine.write_policy(tmp_path / "policy.toml"))
    with served, ThreadPoolExecutor(40) as sites:
        address = f"127.0.0.1:{served.port}"
        found = [sites.submit(fetch, address, policy) for _ in range(500)]
        assert {future.result().certificate for future in found} == {identity.certificate}


@pytest.mark.stress
def test_the_gates_evidence_binds_the_nonce_to_the_key_that_tls_shows(tmp_path):
    identity = listener.TLSIdentity.made("127.0.0.1", ())
    machine = Emulator.at(tmp_path)
    served = ServedGate(BOUNDS, evidence=app.evidence_source(f"emulator:{tmp_path}", identity.spki))
    served.identity = identity
    policy = Policy.read(machine.write_policy(tmp_path / "policy.toml"))
    other = Policy.read(machine.write_policy(tmp_path / "o.toml", measurements=f'["{"00" * 48}"]'))
    with served, served.connect() as connection:
        shown = ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True)).encode()
        assert fetch(f"127.0.0.1:{served.port}", policy).certificate == shown
        with pytest.raises(AttestationError, match="measurement"):
            fetch(f"127.0.0.1:{served.port}", other)


def test_an_unknown_provider_is_named():
    assert app.evidence_source("", b"") is None
    for unknown in ("tpm", "emulator", "emulator:"):
        with pytest.raises(UserError, match=f"no evidence comes from '{unknown}'"):
            app.evidence_source(unknown, b"")


# The key


def test_the_made_certificate_is_for_its_names_and_a_key_of_this_process():
    identity = listener.TLSIdentity.made("0.0.0.0", ["aggregator.example", "192.0.2.7"])
    leaf = x509.load_pem_x509_certificate(identity.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["aggregator.example"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7"]
    assert identity.key != listener.TLSIdentity.made("127.0.0.1", ()).key
    with pytest.raises(UserError, match="--name"):
        listener.TLSIdentity.made("0.0.0.0", ())


def test_an_older_tls_is_refused(served):
    import ssl

    old = ssl.create_default_context(cadata=served.identity.certificate.decode())
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", served.port)) as plain,
        pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|EOF"),
        old.wrap_socket(plain, server_hostname="127.0.0.1"),
    ):
        pass


def test_a_key_that_does_not_match_is_a_users_error():
    one, other = (listener.TLSIdentity.made("127.0.0.1", ()) for _ in range(2))
    with pytest.raises(UserError, match="that match"):
        listener.TLSIdentity(one.certificate, other.key).context()


# Fuzzing

FRAGMENTS = st.sampled_from(
    [
        *(b"POST ", b"GET ", b"PRI ", ALLOWED_PATH.encode(), b"/health", b"/attestation?nonce=" + b"a" * 64),
        *(b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\n", b"\r", b"Host: a", b"Content-Length: 5", b"\r\n\r\n"),
        *(b"Content-Length: 99999999999", b"Transfer-Encoding: chunked", b"Connection: close", b"\0"),
        *(b"Connection: upgrade", b"Upgrade: websocket", b"Expect: 100-continue", b"0\r\n\r\n", b"hello"),
        *(b"5\r\nhello\r\n", post(), post(body=b"x" * 9), b"flwr-public-key: ", b": ", b"?", b"%2e%2e/"),
    ]
)


@pytest.mark.stress
@pytest.mark.timeout(120 + FUZZ_SECONDS)
def test_no_bytes_bring_the_gate_down_or_reach_another_path():
    bounds = Bounds(rate=1e9, burst=1e9, body=1000, head_time=1.0, body_time=1.0, upstream_time=1.0)
    errors: list[str] = []
    with ServedGate(bounds) as served:
        failing = logging.Handler(logging.ERROR)
        failing.emit = lambda record: errors.append(record.getMessage())  # type: ignore[method-assign]
        for name in ("cordon.gate", "asyncio", "uvicorn.error"):
            logging.getLogger(name).addHandler(failing)

        deadline = time.monotonic() + FUZZ_SECONDS

        @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.one_of(FRAGMENTS, FRAGMENTS, FRAGMENTS, st.binary(max_size=40)), max_size=25))
        def attack(pieces: list[bytes]) -> None:
            with served.connect() as connection:
                try:
                    for piece in pieces:
                        connection.sendall(piece)
                except OSError:
                    return
                answer = everything(connection, 0.05)
            assert not answer or re.match(rb"HTTP/1\.1 \d{3} ", answer)
            assert b" 500 " not in answer.partition(b"\r\n")[0]

        while time.monotonic() < deadline:
            attack()
        assert served.healthy()
        assert {(method, path) for method, path, _, _ in served.upstream.seen} <= {("POST", ALLOWED_PATH)}
        for name in ("cordon.gate", "asyncio", "uvicorn.error"):
            logging.getLogger(name).removeHandler(failing)
    assert errors == []
