"""A real SuperLink behind a real gate: what an enrolled site may send, and in whose name."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.error import Error
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from cordon.federation.aggregator.exchange import Exchange
from cordon.federation.credentials import enrol
from cordon.federation.flower import processes, tasks
from cordon.federation.flower.bound_auth import BoundAuth
from cordon.federation.flower.bounds import Bound, TooLarge
from cordon.federation.flower.collecting import MALFORMED, Pulls
from cordon.federation.gate.start import gated_superlink
from cordon.federation.plan import Site, read_enrolment

pytestmark = [pytest.mark.federation, pytest.mark.timeout(180)]

MODEL = {"0.weight": np.zeros((1, 45), np.float32), "0.bias": np.zeros(1, np.float32)}
ANSWERS = Bound.of(array.nbytes for array in MODEL.values())
DECLARED = {"status": "stopped", "run": "r", "round": 1}


class SuperNode:
    """A site's SuperNode as an attacker writes one."""

    def __init__(self, folder: Path, site: str, address: str, *, bound: bool = True) -> None:
        from cryptography.hazmat.primitives.serialization import load_ssh_private_key

        content = (folder / "run" / "sites" / site / "site.key").read_bytes()
        key: Any = load_ssh_private_key(content, password=None)
        roots = folder / "work" / "gate.crt"
        signs = BoundAuth(key, key.public_key(), roots=str(roots)) if bound else NodeAuthHttpInterceptor(
            key, key.public_key()
        )  # fmt: skip
        self.client = FleetHttpClient.from_server_address(
            address, False, roots.read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperNode"), signs],
        )  # fmt: skip
        public = public_key_to_bytes(key.public_key())
        request = ActivateNodeRequest(public_key=public, heartbeat_interval=600)
        self.node = Node(node_id=self.client.ActivateNode(request).node_id)

    def leave(self) -> None:
        self.client.DeactivateNode(DeactivateNodeRequest(node_id=self.node.node_id))
        self.client.close()

    def asked(self) -> Message:
        """The message that it is sent, once there is one."""
        patience = time.monotonic() + 60
        while time.monotonic() < patience:
            response = self.client.PullMessages(PullMessagesRequest(node=self.node))
            if response.messages_list:
                return message_from_proto(response.messages_list[0])
            time.sleep(0.1)
        raise AssertionError("nothing was asked")

    def announce(self, message: Any, tree: ObjectTree) -> Any:
        request = PushMessagesRequest(node=self.node, messages_list=[message], message_object_trees=[tree])
        return self.client.PushMessages(request)

    def answer(self, reply: Message, *, contents: dict[str, bytes] | None = None) -> None:
        """Send ``reply`` whole, or with other ``contents`` of its objects."""
        reply.metadata.__dict__["_message_id"] = reply.object_id
        objects = {name: item.deflate() for name, item in get_all_nested_objects(reply).items()}
        response = self.announce(announced(reply), get_object_tree(reply))
        for name, content in (contents or objects).items():
            self.push(reply.metadata.run_id, response.session_id, name, content)

    def push(self, run: int, session: str, name: str, content: bytes) -> Any:
        return self.client.PushObject(
            PushObjectRequest(
                node=self.node, run_id=run, session_id=session, object_id=name, object_content=content
            )
        )


def announced(reply: Message) -> Any:
    from flwr.app.message import remove_content_from_message

    return message_to_proto(remove_content_from_message(reply))


class Behind:
    def __init__(self, folder: Path, address: str, link: Any, sites: list[Site]) -> None:
        self.folder, self.address, self.link, self.sites = folder, address, link, sites

    @contextmanager
    def asking(self, deadline: float = 60.0) -> Iterator[tuple[dict[str, SuperNode], dict[str, Any]]]:
        """Both sites' SuperNodes, and the answers that the aggregator has of them when the block is over."""
        nodes = {site.name: SuperNode(self.folder, site.name, self.address) for site in self.sites}
        tasks.start_run(self.link)
        found: dict[str, Any] = {}
        with tasks.server_task(self.link) as grid:
            exchange = Exchange(grid, self.sites, self.link.alive)
            tasks.await_replies(grid, exchange.late, ANSWERS)
            content = {site: RecordDict({"c": ConfigRecord({"a": site.name})}) for site in self.sites}

            def ask() -> None:
                answers = exchange.ask(content, "train", deadline, group="1")
                found.update({site.name: answer for site, answer in answers.items()})

            waiting = threading.Thread(target=ask)
            waiting.start()
            yield nodes, found
            waiting.join()
            for node in nodes.values():
                node.leave()


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("behind")
    enrol([Site("north", 6, 1.0), Site("south", 6, 1.0)], None, state=folder / "keys", outdir=folder / "run")
    aggregator = folder / "run" / "aggregator"
    sites = read_enrolment(aggregator / "enrolment.json")
    port, work = processes.free_port(), folder / "work"
    work.mkdir()
    keys = [site.public_key for site in sites]
    with gated_superlink(
        aggregator, "127.0.0.1", port, work, enrolment=aggregator / "enrolment.json", keys=keys,
        answers=ANSWERS,
    ) as link:  # fmt: skip
        yield Behind(folder, f"127.0.0.1:{port}", link, sites)


def refused(status: int, call: Any) -> str:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        call()
    assert caught.value.response.status_code == status, caught.value.response.text
    return caught.value.response.text


def arrays(numbers: int, count: int = 1) -> RecordDict:
    held = {
        f"a{place}": Array.from_numpy_ndarray(np.full(numbers, place, np.float32)) for place in range(count)
    }
    return RecordDict({"update": ArrayRecord(held)})


def test_a_site_answers_in_its_own_name_what_it_was_asked_and_no_more_than_the_model(behind: Behind) -> None:
    with behind.asking() as (nodes, found):
        north, south = nodes["north"], nodes["south"]
        asked, other = north.asked(), south.asked()
        honest = Message(RecordDict({"declaration": ConfigRecord(DECLARED)}), reply_to=asked)
        honest.metadata.__dict__["_message_id"] = honest.object_id
        tree = get_object_tree(honest)

        # In the other site's name, as an answer to what the other was asked, to the other, unasked.
        theirs = Message(RecordDict({"declaration": ConfigRecord(DECLARED)}), reply_to=other)
        theirs.metadata.__dict__["_message_id"] = theirs.object_id
        assert "another's name" in refused(403, lambda: north.announce(announced(theirs), tree))
        for change in ({"reply_to_message_id": other.metadata.message_id}, {"reply_to_message_id": ""},
                       {"dst_node_id": south.node.node_id}):  # fmt: skip
            message = announced(honest)
            for name, value in change.items():
                setattr(message.metadata, name, value)
            assert "only answers what it was asked" in refused(403, lambda m=message: north.announce(m, tree))
        confirmed = ConfirmMessageReceivedRequest(
            node=north.node, run_id=asked.metadata.run_id, message_object_id=other.metadata.message_id
        )
        refused(403, lambda: north.client.ConfirmMessageReceived(confirmed))

        # Too many objects, side by side and nested; content that is none; more bytes than they may have.
        many = Message(arrays(1, 1000), reply_to=asked)
        many.metadata.__dict__["_message_id"] = many.object_id
        refused(413, lambda: north.announce(announced(many), get_object_tree(many)))
        nested = ObjectTree(object_id="a" * 64)
        for place in range(90):
            nested = ObjectTree(object_id=f"{place:064x}", children=[nested])
        refused(413, lambda: north.announce(announced(honest), nested))
        swollen = announced(honest)
        swollen.metadata.group_id = "x" * 100_000
        refused(413, lambda: north.announce(swollen, tree))
        refused(403, lambda: north.push(asked.metadata.run_id, "", "b" * 64, b"x" * 1000))

        big = Message(arrays(25_000), reply_to=asked)
        assert sum(len(item.deflate()) for item in get_all_nested_objects(big).values()) > ANSWERS.bytes
        refused(413, lambda: north.answer(big))
        # It announced that one, and has no other answer.
        refused(403, lambda: north.answer(honest))
        south.answer(Message(RecordDict({"declaration": ConfigRecord(DECLARED)}), reply_to=other))
    assert found["south"][0] is not None
    assert found["south"][0].status == "stopped"
    assert found["north"] == (None, MALFORMED)


def test_an_honest_answer_passes_the_bound_and_one_that_is_no_message_ends_nothing(behind: Behind) -> None:
    with behind.asking() as (nodes, found):
        north, south = nodes["north"], nodes["south"]
        # Announced as an answer to its own task; its content says that it is to the other's.
        forged = Message(RecordDict({"declaration": ConfigRecord(DECLARED)}), reply_to=north.asked())
        genuine = forged.metadata.reply_to_message_id
        forged.metadata.__dict__["_reply_to_message_id"] = "c" * 64
        forged.metadata.__dict__["_message_id"] = forged.object_id
        message = announced(forged)
        message.metadata.reply_to_message_id = genuine
        response = north.announce(message, get_object_tree(forged))
        for name, item in get_all_nested_objects(forged).items():
            north.push(forged.metadata.run_id, response.session_id, name, item.deflate())
        held = {name: Array.from_numpy_ndarray(value) for name, value in MODEL.items()}
        south.answer(
            Message(
                RecordDict({"declaration": ConfigRecord(DECLARED), "update": ArrayRecord(held)}),
                reply_to=south.asked(),
            )
        )
    assert found["north"][0] is not None, "what was announced counts"
    assert found["south"] == (None, "refused: a reply with records declaration, update")


def test_an_answer_whose_objects_do_not_fit_together_is_its_sites_fault(behind: Behind) -> None:
    with behind.asking() as (nodes, found):
        north, south = nodes["north"], nodes["south"]
        reply = Message(RecordDict({"declaration": ConfigRecord(DECLARED)}), reply_to=north.asked())
        reply.metadata.__dict__["_message_id"] = reply.object_id
        # Its tree leaves the record out, which its content then asks for.
        tree = ObjectTree(object_id=reply.object_id)
        response = north.announce(announced(reply), tree)
        north.push(reply.metadata.run_id, response.session_id, reply.object_id, reply.deflate())
        south.answer(Message(Error(1, "\x1b[2J" * 100), reply_to=south.asked()))
    assert found["north"] == (None, MALFORMED)
    assert found["south"] == (None, "")


def test_a_signature_for_another_gate_or_none_is_refused(behind: Behind) -> None:
    """A header that an aggregator was sent, it can show to another where the same key is enrolled."""
    from cordon.federation.credentials import self_signed

    with pytest.raises(httpx.HTTPStatusError, match="401"):
        SuperNode(behind.folder, "north", behind.address, bound=False)

    class OfAnother(BoundAuth):
        """What the aggregator of another consortium was sent just now."""

        def intercept(self, context: Any, call_next: Any) -> httpx.Response:
            from cryptography import x509
            from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

            key = x509.load_pem_x509_certificate(self_signed(["elsewhere"])[0]).public_key()
            self._spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            return super().intercept(context, call_next)

    node = SuperNode(behind.folder, "north", behind.address)
    (own,) = [item for item in node.client._interceptors if isinstance(item, BoundAuth)]
    stolen = OfAnother(own._private_key, own._private_key.public_key(), roots=own._roots)
    node.client._interceptors = (stolen,)
    refused(401, lambda: node.client.PullMessages(PullMessagesRequest(node=node.node)))
    node.client._interceptors = (own,)
    node.client.PullMessages(PullMessagesRequest(node=node.node))
    node.leave()


def test_a_task_without_end_is_not_taken_by_a_site() -> None:
    pulls = Pulls(Bound(objects=3, bytes=1000))
    with pytest.raises(TooLarge):
        pulls.announced(ObjectTree(object_id="m", children=[ObjectTree(object_id=str(x)) for x in range(5)]))
    pulls.announced(ObjectTree(object_id="m", children=[ObjectTree(object_id="a")]))

    class Response:
        object_content = bytes(600)

    class Request:
        object_id = "a"

    pull = pulls.counting(lambda request: Response())
    pull(Request())
    with pytest.raises(TooLarge, match="1000 bytes"):
        pull(Request())
