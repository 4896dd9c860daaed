"""The tasks that Flower's SuperLink and SuperNodes hand out, taken by this process itself.

Flower would start a Python process for each message and run the code of an uploaded bundle in it.
Here the long-lived process of the aggregator, or of the site, takes the tasks itself: nothing is
imported anew, and no code that came over the wire is run. The bundle is a name and nothing else; one
with another hash is refused. Flower's internals are touched here, and where its programs are started
(loopback, supernode): flwr is pinned.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cordon.errors import FederationError
from cordon.federation.flower import app_bundle
from cordon.federation.flower.bounds import Bound
from cordon.federation.flower.collecting import collecting
from cordon.federation.flower.object_pull import awaiting
from cordon.federation.pace import POLL
from cordon.transport.proxy import VARIABLES

if TYPE_CHECKING:
    from flwr.app import Message, RecordDict
    from flwr.serverapp import Grid
    from flwr.supercore.heartbeat import HeartbeatSender
    from flwr.supercore.retry import RetryInvoker
    from flwr.supercore.runtime import RuntimeHttpClient

# Who waits hears at once of a process that ends; an emulated or overloaded machine takes minutes to start it.
START_DEADLINE = 300.0
LOST = "the SuperLink, the gate or the relay ended"

# What Flower says of its own connections is no news for whoever follows a run.
logging.getLogger("flwr").setLevel(logging.WARNING)
# Flower sets its level anew when it is imported. It has a handler of its own: the root's, if anything made
# one, would tell every line again.
logging.getLogger("flwr").propagate = False


class LinkLost(FederationError):
    """The SuperLink, or the gate before it, ended."""


class Tasks:
    """The tasks that a SuperLink or SuperNode at ``address`` has for us, behind a shared secret.

    Flower's own clients try for ever to reach who is gone; with ``alive`` they give up.
    """

    def __init__(self, address: str, secret_file: Path, certificate: Path | None) -> None:
        self.address = address
        # Whether whoever hands the tasks out still runs; who starts it says so.
        self.alive: Callable[[], bool] = lambda: True
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
        with without_proxy():
            return RuntimeHttpClient.from_server_address(
                server_address=self.address,
                insecure=self.certificate is None,
                root_certificates=self.certificate,
                interceptors=[RuntimeVersionHttpInterceptor(component_name="cordon"), authentication],
                # Acquiring is a poll: whoever waits for a task tries again anyway.
                retry_invoker=self.patience(make_simple_http_retry_invoker()) if token else None,
            )

    def patience(self, retries: RetryInvoker) -> RetryInvoker:
        """``retries`` that end where nobody is left to reach, or the task was taken from us.

        Flower's own answer to the latter is to interrupt the whole process.
        """
        import httpx

        hopeless = retries.should_giveup

        def give_up(error: Exception) -> bool:
            taken = isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 401
            return taken or not self.alive() or (hopeless is not None and hopeless(error))

        retries.should_giveup = give_up
        return retries

    def heartbeat(self, client: RuntimeHttpClient) -> HeartbeatSender:
        """What keeps the task of ``client`` ours; whoever works on it finds out where it is gone."""
        import httpx
        from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest
        from flwr.supercore.heartbeat import HeartbeatSender

        def beat() -> bool:
            try:
                client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
            except httpx.HTTPStatusError:
                return True
            except httpx.TransportError:
                return not self.alive()  # otherwise it is tried again
            return True

        return HeartbeatSender(beat)

    def acquire(self, kind: str) -> str | None:
        """The token of a pending task of ``kind``; None when there is none, or nobody answers."""
        import httpx
        from flwr.proto.runtime_pb2 import AcquireTaskRequest

        try:
            answer = self._asking.AcquireTask(AcquireTaskRequest(supported_task_types=[kind]))
        except httpx.HTTPError:
            return None
        return answer.token if answer.HasField("task") and answer.token else None

    @cached_property
    def _asking(self) -> RuntimeHttpClient:
        """The client that acquires tasks: one for all, since making one takes longer than asking."""
        return self.client()

    def close(self) -> None:
        """Let go of whoever hands the tasks out, who could not end before."""
        if (client := self.__dict__.pop("_asking", None)) is not None:
            client.close()


@contextmanager
def without_proxy() -> Iterator[None]:
    """Clients made in the block call this machine itself, whatever proxy the environment names.

    Flower's clients read it as they are made, and say nothing of loopback.
    """
    held = {name: os.environ.pop(name) for name in list(os.environ) if name.lower() in VARIABLES}
    try:
        yield
    finally:
        os.environ.update(held)


@contextmanager
def noticing_loss(alive: Callable[[], bool], failures: type[Exception]) -> Iterator[None]:
    """LinkLost for each of ``failures`` in the block where the SuperLink or the gate ended."""
    try:
        yield
    except failures as error:
        if alive():
            raise
        raise LinkLost(LOST) from error


def register(tasks: Tasks, public_keys: Sequence[str]) -> None:
    """Enrol the SuperNodes' public keys (PEM) at the SuperLink."""
    from flwr.proto.control_pb2 import RegisterNodeRequest

    with _control(tasks) as client:
        for key in public_keys:
            client.RegisterNode(RegisterNodeRequest(public_key=key.encode()))


def start_run(tasks: Tasks) -> None:
    """Ask the SuperLink for a run; its ServerApp task can then be acquired."""
    from flwr.common.serde import fab_to_proto
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.supercore.fab import Fab

    content, digest = app_bundle.bundle()
    with _control(tasks) as client:
        answer = client.StartRun(StartRunRequest(fab=fab_to_proto(Fab(digest, content, {}))))
    if not answer.HasField("run_id"):
        raise FederationError("the SuperLink refused to start a run. See its log in the folder flower.")


@contextmanager
def server_task(tasks: Tasks) -> Iterator[Grid]:
    """The run's ServerApp task, taken by this process: a Grid to send and receive messages with."""
    from flwr.common.constant import SubStatus
    from flwr.common.serde import run_from_proto
    from flwr.proto.runtime_pb2 import PullTaskInputRequest, PushTaskOutputRequest
    from flwr.supercore.constant import TaskType
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.superlink.grid import HttpGrid

    nothing = "the SuperLink handed out no run. See its log in the folder flower."
    token = until(lambda: tasks.acquire(TaskType.SERVER_APP), nothing, alive=tasks.alive)
    grid = HttpGrid(tasks.address, root_certificates=tasks.certificate, token=token)
    tasks.patience(grid._retry_invoker)
    with without_proxy():
        client = grid._runtime_client
    heartbeat = tasks.heartbeat(client)
    heartbeat.start()
    status, details = SubStatus.FAILED, "the aggregator stopped"
    try:
        given = client.PullTaskInput(PullTaskInputRequest())
        app_bundle.check(given.run.fab_hash, "what the SuperLink's run carries")
        # Flower stamps every new message with the task that this process works on.
        TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
        TaskIdentity.node_id = given.context.node_id
        grid.set_run(run_from_proto(given.run))
        yield grid
        status, details = SubStatus.COMPLETED, ""
    finally:
        heartbeat.stop()
        if tasks.alive():
            client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=details))
        grid.close()


def await_replies(grid: Grid, late: Callable[[], bool], bound: Bound) -> None:
    """Let ``grid`` take replies as `collecting` does: each of at most ``bound``, and none once it is late."""
    from flwr.superlink.grid import HttpGrid

    assert isinstance(grid, HttpGrid)
    grid.pull_messages = collecting(grid, late, bound)  # type: ignore[method-assign, assignment]


def answer(tasks: Tasks, handle: Callable[[Message], RecordDict], *, refused: str) -> bool:
    """Take one ClientApp task if there is one, and send what ``handle`` makes of its message.

    Where ``handle`` raises, the reply is an error with the fixed text ``refused``: an exception's own
    words may name files, samples or values. Returns whether there was a task, and the SuperNode still had
    it in the end: what was answered and not taken is lost.
    """
    import httpx
    from flwr.app import Message
    from flwr.app.error import Error
    from flwr.common.constant import ErrorCode, SubStatus
    from flwr.supercore.constant import TaskType
    from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
    from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

    token = tasks.acquire(TaskType.CLIENT_APP)
    if token is None:
        return False
    client = tasks.client(token=token)
    heartbeat = tasks.heartbeat(client)
    heartbeat.start()
    try:
        client.PullObject = awaiting(client.PullObject)  # type: ignore[method-assign]
        message, context, run, _ = pull_task_input(client)
        error = None
        try:
            app_bundle.check(run.fab_hash, "what the aggregator's run carries")
            reply = Message(handle(message), reply_to=message)
        except Exception as failure:
            error = failure
            reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, refused), reply_to=message)
        push_message(client, reply, context)
        push_task_output(client, context, SubStatus.FAILED if error else SubStatus.COMPLETED, "")
        if error:
            raise error
    except (httpx.HTTPError, ObjectPullError):
        return False
    finally:
        heartbeat.stop()
        client.close()
    return True


def raised_at_site(message: Message) -> bool:
    """Whether a message with an error says that the site itself could not or would not answer (`answer`)."""
    from flwr.common.constant import ErrorCode

    return message.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION


@contextmanager
def _control(tasks: Tasks) -> Iterator[Any]:
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    with without_proxy():
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


def until(condition: Callable[[], Any], failure: str, *, alive: Callable[[], bool] = lambda: True) -> Any:
    """The first true value of ``condition``; FederationError past the deadline, LinkLost if not ``alive``."""
    deadline = time.monotonic() + START_DEADLINE
    while not (value := condition()):
        if not alive():
            raise LinkLost(failure)
        if time.monotonic() > deadline:
            raise FederationError(failure)
        time.sleep(POLL)
    return value
