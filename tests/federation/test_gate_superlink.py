"""A real SuperLink behind a real gate: what the world reaches of it, and the machine's other users."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path

import httpx
import pytest

from cordon.federation.credentials import enrol
from cordon.federation.flower import processes, signatures
from cordon.federation.gate.start import gated_superlink
from cordon.federation.plan import Site, read_enrolment
from cordon.transport import socket_owner
from served_gate import passed_on, superlink_routes

pytestmark = [pytest.mark.federation, pytest.mark.timeout(120)]


class Behind:
    def __init__(self, folder: Path, tasks, port: int, keys: list[Path]) -> None:
        self.folder, self.tasks, self.port, self.keys = folder, tasks, port, keys

    def trust(self):
        import ssl

        return ssl.create_default_context(cafile=str(self.folder / "gate.crt"))

    def direct(self):
        import ssl

        return ssl.create_default_context(cadata=self.tasks.certificate.decode())

    def fleet(self, key):
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
        from flwr.supernode.fleet_http_client import FleetHttpClient

        from cordon.federation.flower.bound_auth import BoundAuth

        return FleetHttpClient.from_server_address(
            f"127.0.0.1:{self.port}", False, (self.folder / "gate.crt").read_bytes(),
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                BoundAuth(key, key.public_key(), roots=str(self.folder / "gate.crt")),
            ],
        )  # fmt: skip


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    """An enrolled site and a gate with a key of its own: the credentials hold no certificate."""
    folder = tmp_path_factory.mktemp("behind")
    enrol([Site("north", 6, 1.0)], None, state=folder / "keys", outdir=folder / "run")
    aggregator = folder / "run" / "aggregator"
    assert [file.name for file in aggregator.iterdir()] == ["enrolment.json"]
    port = processes.free_port()
    work = folder / "work"
    work.mkdir()
    enrolment = aggregator / "enrolment.json"
    keys = [site.public_key for site in read_enrolment(enrolment)]
    with gated_superlink(aggregator, "127.0.0.1", port, work, enrolment=enrolment, keys=keys) as tasks:
        yield Behind(work, tasks, port, [folder / "run" / "sites" / "north" / "site.key"])


def enrolled_key(behind):
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    return load_ssh_private_key(behind.keys[0].read_bytes(), password=None)


def test_the_rogue_client_reaches_no_route_of_a_real_superlink(behind):
    routes = superlink_routes()
    log = (behind.folder / "superlink.log").read_text()
    with httpx.Client(base_url=f"https://127.0.0.1:{behind.port}", verify=behind.trust()) as client:
        for method, path in routes - passed_on(routes) - {("GET", "/health")}:
            answer = client.request(method, path)
            assert answer.status_code == 403, (method, path)
        for method, path in passed_on(routes):
            answer = client.request(method, path, content=b"")
            assert (answer.status_code, path) == (401, path)
            assert "not enrolled" in answer.json()["detail"]
    assert (behind.folder / "superlink.log").read_text() == log


def test_what_the_gate_refuses_would_have_worked_on_the_superlink_itself(behind):
    """Without the gate anybody starts runs, lists them, adds identities: the refusals mean something."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from flwr.common.serde import fab_to_proto
    from flwr.proto.control_pb2 import ListRunsRequest, RegisterNodeRequest, StartRunRequest
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.fab import Fab
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes
    from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

    from cordon.federation.flower.app_bundle import bundle

    content, digest = bundle()
    mine = public_key_to_bytes(ec.generate_private_key(ec.SECP384R1()).public_key())
    calls = {
        "/v1/control/list-runs": (ListRunsRequest(), 200),
        "/v1/control/start-run": (StartRunRequest(fab=fab_to_proto(Fab(digest, content, {}))), 200),
        "/v1/control/register-node": (RegisterNodeRequest(public_key=mine), 200),
        "/v1/runtime/acquire-task": (AcquireTaskRequest(supported_task_types=["flwr-serverapp"]), 401),
    }
    protobuf = {"content-type": PROTOBUF_MEDIA_TYPE, "accept": PROTOBUF_MEDIA_TYPE}
    for path, (request, direct) in calls.items():
        body = request.SerializeToString()
        inner = httpx.post(
            f"https://{behind.tasks.address}{path}", content=body, headers=protobuf, verify=behind.direct()
        )
        assert (inner.status_code, path) == (direct, path)
        outer = httpx.post(
            f"https://127.0.0.1:{behind.port}{path}", content=body, headers=protobuf, verify=behind.trust()
        )
        assert (outer.status_code, path) == (403, path)


def test_an_enrolled_key_comes_in_and_no_other_even_for_the_same_call(behind):
    from cryptography.hazmat.primitives.asymmetric import ec
    from flwr.proto.fleet_pb2 import (
        ActivateNodeRequest,
        DeactivateNodeRequest,
        RegisterNodeFleetRequest,
        UnregisterNodeFleetRequest,
    )
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    key, stranger = enrolled_key(behind), ec.generate_private_key(ec.SECP384R1())
    own = ActivateNodeRequest(public_key=public_key_to_bytes(key.public_key()), heartbeat_interval=30)
    with behind.fleet(key) as node:
        identity = node.ActivateNode(own).node_id
        assert identity
        for call in (
            lambda: node.RegisterNode(RegisterNodeFleetRequest(public_key=own.public_key)),
            lambda: node.UnregisterNode(UnregisterNodeFleetRequest(node_id=identity)),
        ):
            with pytest.raises(httpx.HTTPStatusError, match="403"):
                call()
        with behind.fleet(stranger) as other, pytest.raises(httpx.HTTPStatusError, match="401"):
            other.DeactivateNode(DeactivateNodeRequest(node_id=identity))
        node.DeactivateNode(DeactivateNodeRequest(node_id=identity))


def test_a_signature_of_another_time_or_key_is_refused(behind):
    import datetime

    from cryptography.hazmat.primitives.asymmetric import ec
    from flwr.supercore.date import now
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

    key = enrolled_key(behind)
    pem = public_key_to_bytes(key.public_key())
    enrolled = signatures.enrolled_keys(behind.folder.parent / "run" / "aggregator" / "enrolment.json")

    def headers(signer, age: float = 0, public: bytes = pem):
        stamp = (now() - datetime.timedelta(seconds=age)).isoformat()
        signature = sign_message(signer, stamp.encode())
        return {
            "flwr-public-key": b64encode(public).decode(), "flwr-timestamp": stamp,
            "flwr-signature": b64encode(signature).decode(),
        }  # fmt: skip

    assert signatures.authentic(headers(key), enrolled)
    assert not signatures.authentic(headers(ec.generate_private_key(ec.SECP384R1())), enrolled)
    assert not signatures.authentic(headers(key, age=400), enrolled)
    assert not signatures.authentic(headers(key, age=-60), enrolled)
    assert not signatures.authentic(headers(key, public=b"\xff"), enrolled)


def test_the_kernel_says_who_is_at_the_other_end_and_a_closed_one_is_nobody():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = listening.getsockname()
        client = socket.create_connection(server)
        accepted, name = listening.accept()
        with accepted:
            assert socket_owner.sender(name, server) == os.geteuid()
            assert socket_owner.sender((name[0], 0), server) is None
            assert socket_owner.sender(("::1", name[1]), server) is None
            client.close()
            assert socket_owner.sender(name, server) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can act as another user")
def test_another_user_of_the_machine_does_not_reach_the_superlink(behind):
    attack = """
import encodings.idna, os, socket, ssl, sys
os.setuid(int(sys.argv[2]))
plain = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection = ssl._create_unverified_context().wrap_socket(plain)
connection.sendall(
    b"POST /v1/control/list-runs HTTP/1.1\\r\\nHost: x\\r\\nX-Forwarded-For: 127.0.0.1\\r\\n"
    b"Content-Type: application/protobuf\\r\\nContent-Length: 0\\r\\n\\r\\n"
)
print(connection.recv(1000).split(b" ")[1].decode())
"""
    port = behind.tasks.address.rpartition(":")[2]

    def as_user(user: int) -> str:
        command = [sys.executable, "-c", attack, port, str(user)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert as_user(0) == "200"
    assert as_user(65534) == "403"


def test_no_private_key_is_left_in_a_file(behind):
    files = [file for file in behind.folder.rglob("*") if file.is_file()]
    assert behind.folder / "gate.crt" in files
    assert not [file for file in files if b"PRIVATE KEY" in file.read_bytes()]


def test_superlink_and_gate_end_when_they_are_told_to(tmp_path, monkeypatch):
    """A connection of ours that stayed open would hold the SuperLink until it is killed."""
    from flwr.supercore.constant import TaskType

    started = []

    class Seen(processes.Process):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(processes, "Process", Seen)
    enrol([Site("north", 6, 1.0)], "127.0.0.1", state=tmp_path / "keys", outdir=tmp_path / "run")
    port = processes.free_port()
    with gated_superlink(tmp_path / "run" / "aggregator", "127.0.0.1", port, tmp_path) as tasks:
        assert tasks.acquire(TaskType.SERVER_APP) is None
    ended = [one.exit_status() for one in started]
    assert len(ended) == 2
    assert -signal.SIGKILL not in ended


def test_the_gate_ends_with_the_process_that_started_it(tmp_path):
    enrol([Site("north", 6, 1.0)], "127.0.0.1", state=tmp_path / "keys", outdir=tmp_path / "run")
    port = processes.free_port()
    script = (
        "import sys, time; from pathlib import Path\n"
        "from cordon.federation.gate.start import gated_superlink\n"
        "with gated_superlink(Path(sys.argv[1]), '127.0.0.1', int(sys.argv[2]), Path(sys.argv[3])):\n"
        "    print('ready', flush=True); time.sleep(60)\n"
    )
    arguments = [str(tmp_path / "run" / "aggregator"), str(port), str(tmp_path)]
    parent = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    socket.create_connection(("127.0.0.1", port)).close()
    parent.kill()
    parent.wait()
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            pass  # it is ending
        time.sleep(0.1)
    pytest.fail("the gate still listens")
