"""Flower's deployment runtime, as Cordon uses it: SuperLink, SuperNode, and the tasks they hand out.

Flower would start a Python process for each message and run the code of an uploaded bundle in it.
Here the long-lived process of the aggregator, or of the site, takes the tasks itself: nothing is
imported anew, and no code that came over the wire is run. The bundle is a name and nothing else; one
with another hash is refused. This is the only module that touches Flower's internals: flwr is pinned.
"""

from __future__ import annotations

import ctypes
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cordon.errors import FederationError, Unreachable

if TYPE_CHECKING:
    from flwr.app import Message, RecordDict
    from flwr.serverapp import Grid
    from flwr.supercore.runtime import RuntimeHttpClient

BUNDLE = Path(__file__).parent / "bundle"
START_DEADLINE = 60.0
POLL = 0.1
PR_SET_PDEATHSIG = 1

# What Flower says of its own connections is no news for whoever follows a run.
logging.getLogger("flwr").setLevel(logging.WARNING)


def environment(home: Path) -> dict[str, str]:
    """The environment of every Flower process: no telemetry, no updates, no installs, its own home."""
    return {
        **os.environ,
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_HOME": str(home),
        "OMP_NUM_THREADS": "1",
    }


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])


class Process:
    """A Flower command that dies with us, its output in ``log``."""

    def __init__(self, command: Sequence[str], home: Path, log: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).parent / command[0]), *command[1:]],
                env=environment(home),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
            )
        self.pid = self._process.pid

    def exit_status(self) -> int | None:
        return self._process.poll()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process: politely, and after ten seconds for certain."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _die_with_parent() -> None:
    # A task that is killed outright cannot stop its children: Linux does it.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Tasks:
    """The tasks that a SuperLink or SuperNode at ``address`` has for us, behind a shared secret."""

    def __init__(self, address: str, secret_file: Path, certificate: Path | None) -> None:
        self.address = address
        self.certificate = certificate.read_bytes() if certificate else None
        self._secret = secret_file.read_bytes()

    def client(self, *, token: str | None = None) -> RuntimeHttpClient:
        """A client of the runtime API: for one task (``token``), or for acquiring tasks."""
        from flwr.supercore.interceptors import (
            RuntimeTokenHttpInterceptor,
            RuntimeVersionHttpInterceptor,
            SuperExecAuthHttpInterceptor,
        )
        from flwr.supercore.retry import make_simple_http_retry_invoker
        from flwr.supercore.runtime import RuntimeHttpClient

        authentication: Any = (
            RuntimeTokenHttpInterceptor(token)
            if token
            else SuperExecAuthHttpInterceptor(
                master_secret=self._secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"}
            )
        )
        return RuntimeHttpClient.from_server_address(
            server_address=self.address,
            insecure=self.certificate is None,
            root_certificates=self.certificate,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="cordon"), authentication],
            # Acquiring is a poll: whoever waits for a task tries again anyway.
            retry_invoker=make_simple_http_retry_invoker() if token else None,
        )

    def acquire(self, kind: str) -> str | None:
        """The token of a pending task of ``kind``; None when there is none, or nobody answers."""
        import httpx
        from flwr.proto.runtime_pb2 import AcquireTaskRequest

        client = self.client()
        try:
            answer = client.AcquireTask(AcquireTaskRequest(supported_task_types=[kind]))
            return answer.token if answer.HasField("task") and answer.token else None
        except httpx.HTTPError:
            return None
        finally:
            client.close()


def make_secret(path: Path) -> Path:
    """A fresh shared secret at ``path``, for its owner's eyes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(secrets.token_hex(32))
    return path


@contextmanager
def superlink(credentials: Path, host: str, port: int, workdir: Path) -> Iterator[Tasks]:
    """A SuperLink with TLS and SuperNode authentication at ``host:port``, ready; ends with the block."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise Unreachable(
                f"cannot listen on {host}:{port} ({error.strerror}). Set --aggregator_port to a free port."
            ) from error
    secret = make_secret(workdir / "superexec.secret")
    command = [
        "flower-superlink", "--host", host, "--port", str(port), "--isolation", "process",
        "--ssl-ca-certfile", str(credentials / "ca.crt"), "--ssl-certfile", str(credentials / "server.crt"),
        "--ssl-keyfile", str(credentials / "server.key"), "--enable-supernode-auth",
        "--disable-runtime-dependency-installation", "--superexec-auth-secret-file", str(secret),
    ]  # fmt: skip
    log = workdir / "superlink.log"
    with Process(command, workdir / "flower", log) as process:
        tasks = Tasks(f"{host}:{port}", secret, credentials / "ca.crt")
        _until(lambda: _healthy(tasks), process, f"the SuperLink did not start; see {log}")
        yield tasks


def supernode(address: str, certificate: Path, key: Path, workdir: Path) -> tuple[Process, Tasks]:
    """Start a SuperNode that connects to ``address``; its tasks are ours."""
    secret = make_secret(workdir / "superexec.secret")
    port = free_port()
    command = [
        "flower-supernode", "--superlink", address, "--root-certificates", str(certificate),
        "--auth-supernode-private-key", str(key), "--isolation", "process", "--host", "127.0.0.1",
        "--port", str(port), "--superexec-auth-secret-file", str(secret), "--max-wait-time", "60",
    ]  # fmt: skip
    process = Process(command, workdir / "flower", workdir / "supernode.log")
    return process, Tasks(f"127.0.0.1:{port}", secret, None)


def register(tasks: Tasks, public_keys: Sequence[str]) -> None:
    """Enrol the SuperNodes' public keys (PEM) at the SuperLink."""
    from flwr.proto.control_pb2 import RegisterNodeRequest

    with _control(tasks) as client:
        for key in public_keys:
            client.RegisterNode(RegisterNodeRequest(public_key=key.encode()))


def bundle() -> tuple[bytes, str]:
    """The app bundle that a run carries, and its SHA-256 in hex."""
    import hashlib

    from flwr.cli.build import build_fab_from_disk

    content = build_fab_from_disk(BUNDLE)
    return content, hashlib.sha256(content).hexdigest()


def start_run(tasks: Tasks) -> None:
    """Ask the SuperLink for a run; its ServerApp task can then be acquired."""
    from flwr.common.serde import fab_to_proto
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.supercore.fab import Fab

    content, digest = bundle()
    with _control(tasks) as client:
        answer = client.StartRun(StartRunRequest(fab=fab_to_proto(Fab(digest, content, {}))))
    if not answer.HasField("run_id"):
        raise FederationError("the SuperLink refused to start a run; see its log.")


@contextmanager
def server_task(tasks: Tasks) -> Iterator[Grid]:
    """The run's ServerApp task, taken by this process: a Grid to send and receive messages with."""
    from flwr.common.constant import SubStatus
    from flwr.common.serde import run_from_proto
    from flwr.proto.runtime_pb2 import PullTaskInputRequest, PushTaskOutputRequest
    from flwr.supercore.constant import TaskType
    from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.superlink.grid import HttpGrid

    token = _until(lambda: tasks.acquire(TaskType.SERVER_APP), None, "the SuperLink handed out no run")
    grid = HttpGrid(tasks.address, root_certificates=tasks.certificate, token=token)
    client = grid._runtime_client
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    status, details = SubStatus.FAILED, "the aggregator stopped"
    try:
        given = client.PullTaskInput(PullTaskInputRequest())
        # Flower stamps every new message with the task that this process works on.
        TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
        TaskIdentity.node_id = given.context.node_id
        grid.set_run(run_from_proto(given.run))
        yield grid
        status, details = SubStatus.COMPLETED, ""
    finally:
        client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=details))
        heartbeat.stop()
        grid.close()


def answer(tasks: Tasks, handle: Callable[[Message], RecordDict], *, refused: str) -> bool:
    """Take one ClientApp task if there is one, and send what ``handle`` makes of its message.

    Where ``handle`` raises, the reply is an error with the fixed text ``refused``: an exception's own
    words may name files, samples or values. Returns whether there was a task.
    """
    from flwr.app import Message
    from flwr.app.error import Error
    from flwr.common.constant import ErrorCode, SubStatus
    from flwr.supercore.constant import TaskType
    from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
    from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

    token = tasks.acquire(TaskType.CLIENT_APP)
    if token is None:
        return False
    client = tasks.client(token=token)
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    try:
        message, context, run, _ = pull_task_input(client)
        error = None
        try:
            if run.fab_hash != bundle()[1]:
                raise FederationError(f"refused a bundle with the unknown hash {run.fab_hash}")
            reply = Message(handle(message), reply_to=message)
        except Exception as failure:
            error = failure
            reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, refused), reply_to=message)
        push_message(client, reply, context)
        push_task_output(client, context, SubStatus.FAILED if error else SubStatus.COMPLETED, "")
        if error:
            raise error
    finally:
        heartbeat.stop()
        client.close()
    return True


@contextmanager
def _control(tasks: Tasks) -> Iterator[Any]:
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    client = ControlHttpClient.from_server_address(
        server_address=tasks.address,
        insecure=tasks.certificate is None,
        root_certificates=tasks.certificate,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="cordon")],
    )
    try:
        yield client
    finally:
        client.close()


def _healthy(tasks: Tasks) -> bool:
    import ssl

    import httpx

    assert tasks.certificate is not None
    context = ssl.create_default_context(cadata=tasks.certificate.decode())
    try:
        return httpx.get(f"https://{tasks.address}/health", verify=context, timeout=5).is_success
    except httpx.HTTPError:
        return False


def _until(condition: Callable[[], Any], process: Process | None, failure: str) -> Any:
    """The first true value of ``condition``; FederationError past the deadline or the process's death."""
    deadline = time.monotonic() + START_DEADLINE
    while not (value := condition()):
        if time.monotonic() > deadline or (process is not None and process.exit_status() is not None):
            raise FederationError(failure)
        time.sleep(POLL)
    return value
