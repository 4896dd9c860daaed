"""What Cordon takes of Flower outside its public modules, name by name, as the pinned version has it.

An upgrade of Flower fails here first, and says what changed. That these names also do what they should is
for the tests with a real SuperLink and SuperNodes (test_gate_superlink.py, test_federation.py).
"""

import ast
import inspect
from importlib.metadata import requires, version
from pkgutil import resolve_name

import pytest

from conftest import ROOT

SOURCE = ROOT / "src" / "cordon"
# The one room that may take more than these; Flower documents them.
ROOM = SOURCE / "federation" / "flower"
PUBLIC = ("flwr.app", "flwr.serverapp", "flwr.serverapp.strategy", "flwr.clientapp")
# Functions and classes, with the parameters that they take.
CALLED = {
    "flwr.app.error.Error": "code reason",
    "flwr.app.message.make_message": "metadata content error",
    "flwr.cli.build.build_fab_from_disk": "app",
    "flwr.common.serde.fab_to_proto": "fab",
    "flwr.common.serde.run_from_proto": "run_proto",
    "flwr.common.serde_utils.metadata_from_proto": "metadata_proto",
    "flwr.supercore.control.ControlHttpClient.from_server_address":
        "server_address insecure root_certificates interceptors retry_invoker",
    "flwr.supercore.date.now": "",
    "flwr.supercore.fab.Fab": "hash_str content verifications",
    "flwr.supercore.heartbeat.HeartbeatSender": "heartbeat_fn",
    "flwr.supercore.inflatable.inflatable_utils.ObjectPullError": "object_id reason",
    "flwr.supercore.inflatable.inflatable_utils.inflate_object_from_contents":
        "object_id object_contents keep_object_contents objects",
    "flwr.supercore.interceptors.http.utils.add_headers": "request headers",
    "flwr.supercore.interceptors.RuntimeTokenHttpInterceptor": "token",
    "flwr.supercore.interceptors.RuntimeVersionHttpInterceptor": "component_name",
    "flwr.supercore.interceptors.SuperExecAuthHttpInterceptor": "master_secret protected_methods",
    "flwr.supercore.primitives.asymmetric.bytes_to_public_key": "public_key_bytes",
    "flwr.supercore.primitives.asymmetric.sign_message": "private_key message",
    "flwr.supercore.primitives.asymmetric.verify_signature": "public_key message signature",
    "flwr.supercore.retry.make_simple_http_retry_invoker": "",
    "flwr.supercore.runtime.RuntimeHttpClient.from_server_address":
        "server_address insecure root_certificates interceptors retry_invoker",
    "flwr.superlink.cli:flower_superlink": "",
    "flwr.superlink.grid.HttpGrid": "runtime_api_address insecure root_certificates token",
    "flwr.superlink.servicer.control.control_handlers.start_run":
        "request account state fleet_api_type source",
    "flwr.superlink.servicer.fleet.fleet_handlers.confirm_message_received": "request state store",
    "flwr.superlink.servicer.fleet.fleet_handlers.pull_messages": "request state store",
    "flwr.superlink.servicer.fleet.fleet_handlers.push_messages": "request state",
    "flwr.superlink.servicer.fleet.fleet_handlers.push_object": "request state",
    "flwr.superlink.servicer.runtime.runtime_handlers.pull_object": "request state task",
    "flwr.supernode.cli:flower_supernode": "",
    "flwr.supernode.fleet_http_client.FleetHttpClient.PullMessages": "self request",
    "flwr.supernode.fleet_http_client.FleetHttpClient.PullObject": "self request",
    "flwr.supernode.node_auth_http_interceptor.NodeAuthHttpInterceptor": "private_key public_key",
    "flwr.supernode.runtime.run_clientapp.pull_task_input": "client",
    "flwr.supernode.runtime.run_clientapp.push_message": "client message context",
    "flwr.supernode.runtime.run_clientapp.push_task_output": "client context sub_status details",
}  # fmt: skip
# Messages of its protocol, with the fields that are read or written.
MESSAGES = {
    "control_pb2.RegisterNodeRequest": "public_key", "control_pb2.StartRunRequest": "fab app_spec",
    "control_pb2.StartRunResponse": "run_id",
    "message_pb2.ConfirmMessageReceivedRequest": "node run_id message_object_id",
    "message_pb2.ObjectTree": "object_id children",
    "message_pb2.PullObjectRequest": "node run_id object_id",
    "message_pb2.PullObjectResponse": "object_available object_found object_content",
    "runtime_pb2.PullAppMessagesRequest": "message_ids",
    "runtime_pb2.AcquireTaskRequest": "supported_task_types", "runtime_pb2.AcquireTaskResponse": "task token",
    "runtime_pb2.PullTaskInputRequest": "", "runtime_pb2.PullTaskInputResponse": "run context task_id",
    "runtime_pb2.PushTaskOutputRequest": "sub_status details", "runtime_pb2.SendTaskHeartbeatRequest": "",
}  # fmt: skip
VALUES = {
    "flwr.common.constant.ErrorCode.CLIENT_APP_RAISED_EXCEPTION": 2,
    "flwr.common.constant.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": 5 * 2**20,
    "flwr.common.constant.SUPERLINK_NODE_ID": 1, "flwr.common.constant.TIMESTAMP_HEADER": "flwr-timestamp",
    "flwr.common.constant.SubStatus.COMPLETED": "completed",
    "flwr.common.constant.SubStatus.FAILED": "failed",
    "flwr.common.constant.SYSTEM_TIME_TOLERANCE": 5, "flwr.common.constant.TIMESTAMP_TOLERANCE": 300,
    "flwr.supercore.constant.TaskType.CLIENT_APP": "flwr-clientapp",
    "flwr.supercore.constant.TaskType.SERVER_APP": "flwr-serverapp",
}  # fmt: skip
# What is set or taken where Flower has no way for it.
ATTRIBUTES = {
    "flwr.supercore.task_identity.TaskIdentity": {"task_id", "run_id", "node_id"},
    "flwr.supernode.fleet_http_connection": {"NodeAuthHttpInterceptor"},
    "flwr.supernode.start_client_internal": {"time"},
    "flwr.superlink.servicer.fleet.fleet_handlers": {"push_messages"},
    "flwr.superlink.servicer.runtime.runtime_handlers": {"pull_object"},
    "flwr.superlink.grid.HttpGrid": {"_runtime_client", "set_run", "close"},
    "flwr.supercore.heartbeat.HeartbeatSender": {"start", "stop"},
    "flwr.supercore.retry.RetryInvoker": {"invoke"},
    "flwr.supercore.runtime.RuntimeHttpClient": {
        "AcquireTask",
        "ConfirmMessageReceived",
        "PullMessages",
        "PullObject",
        "PullTaskInput",
        "PushTaskOutput",
        "SendTaskHeartbeat",
        "close",
    },
}


def taken():
    """What each file of the package imports of Flower, by its whole name."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "flwr":
                yield from ((path, node.module, f"{node.module}.{name.name}") for name in node.names)
            elif isinstance(node, ast.Import):
                yield from (
                    (path, name.name, name.name) for name in node.names if name.name.startswith("flwr")
                )


def test_what_is_not_public_is_taken_behind_one_door():
    outside = {
        (str(path.relative_to(SOURCE)), whole)
        for path, module, whole in taken()
        if module not in PUBLIC and ROOM not in path.parents
    }
    assert outside == set()


def test_every_name_that_is_taken_stands_here():
    listed = [*CALLED, *VALUES, *ATTRIBUTES, *(f"flwr.proto.{name}" for name in MESSAGES)]
    told = "".join(f"{name.replace(':', '.')}.\n" for name in listed)
    missing = {whole for _, module, whole in taken() if module not in PUBLIC and f"{whole}." not in told}
    assert missing == set()


@pytest.mark.parametrize("name", CALLED)
def test_what_is_called_takes_what_it_is_given(name):
    assert " ".join(inspect.signature(resolve_name(name)).parameters) == CALLED[name]


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_have_their_fields(name):
    fields = resolve_name(f"flwr.proto.{name}").DESCRIPTOR.fields_by_name
    assert set(MESSAGES[name].split()) <= set(fields)


@pytest.mark.parametrize("name", VALUES)
def test_constants_are_what_they_were(name):
    assert resolve_name(name) == VALUES[name]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_what_is_set_is_there_to_be_set(name):
    assert ATTRIBUTES[name] <= set(dir(resolve_name(name))) | set(dir(type(resolve_name(name))))


def test_retries_are_ended_by_an_attribute_of_theirs():
    from flwr.supercore.retry import make_simple_http_retry_invoker

    retries = make_simple_http_retry_invoker()
    assert callable(retries.should_giveup) or retries.should_giveup is None


def test_what_is_tested_is_what_is_pinned():
    (pinned,) = [line for line in requires("cordon") or () if line.startswith("flwr")]
    assert pinned == f"flwr=={version('flwr')}"
