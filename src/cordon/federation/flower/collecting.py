"""Taking what came in, within bounds: the aggregator its sites' answers, a SuperNode its tasks.

What a message is an answer to, and whose, is what was announced to the SuperLink, which knows who announced
it; what the message's own content says of that is its sender's word, and counts for nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cordon.federation.flower.bounds import Bound, TooLarge

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.superlink.grid import HttpGrid

# What stands in an error in place of a message that cannot be one.
MALFORMED = "an answer that is larger than the plan's model allows, or that is no message"


class Pulls:
    """Counts the bytes pulled of each message; TooLarge above ``bound``, before more are asked for."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._lock = threading.Lock()
        self._message: dict[str, str] = {}
        self._bytes: dict[str, int] = {}

    def announced(self, tree: Any) -> None:
        """Expect the objects below ``tree``; TooLarge where they are too many."""
        ids = self._bound.ids(tree)
        with self._lock:
            self._message = dict.fromkeys(ids, tree.object_id)
            self._bytes = {tree.object_id: 0}

    def announcing(self, pull: Callable[..., Any]) -> Callable[..., Any]:
        """Flower's ``pull`` of messages, of which each is `announced`."""

        def pulled(*asked: Any) -> Any:
            response = pull(*asked)
            for tree in response.message_object_trees:
                self.announced(tree)
            return response

        return pulled

    def counting(self, pull: Callable[..., Any]) -> Callable[..., Any]:
        """Flower's ``pull`` of one object."""

        def counted(*asked: Any) -> Any:
            response, request = pull(*asked), asked[-1]
            with self._lock:
                message = self._message.get(request.object_id, "")
                self._bytes[message] = self._bytes.get(message, 0) + len(response.object_content)
                if self._bytes[message] > self._bound.bytes:
                    raise TooLarge(f"more than {self._bound.bytes} bytes")
            return response

        return counted


@dataclass
class _Announced:
    """An answer that is on its way: what was announced of it, and as much as has come."""

    message: Any
    ids: list[str]
    contents: dict[str, bytes] = field(default_factory=dict)

    def fetch(self, pull: Callable[[str], Any], bound: Bound) -> bool:
        """Take what is there by ``pull``, and say whether that is all.

        TooLarge above ``bound``; LookupError for what will never be there.
        """
        for name in self.ids[len(self.contents) :]:
            response = pull(name)
            if not response.object_found:
                raise LookupError(name)
            if not response.object_available:
                return False
            self.contents[name] = response.object_content
            if sum(map(len, self.contents.values())) > bound.bytes:
                raise TooLarge(f"more than {bound.bytes} bytes")
        return True


def collecting(
    grid: HttpGrid, late: Callable[[], bool], bound: Bound
) -> Callable[[Iterable[str]], list[Message]]:
    """In place of ``grid.pull_messages``: each answer once all of it is there, none once it is late.

    Nobody waits for another's answer: who announces one and never sends it is late, and costs no other.
    A site's malformed answer is an error of its own (MALFORMED), and ends nothing but its part in the round.
    """
    from flwr.app.error import Error
    from flwr.app.message import make_message
    from flwr.common.constant import ErrorCode
    from flwr.common.serde_utils import metadata_from_proto
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
    from flwr.proto.runtime_pb2 import PullAppMessagesRequest
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    client, open_ = grid._runtime_client, dict[str, _Announced]()

    def pull(name: str) -> Any:
        return client.PullObject(PullObjectRequest(node=grid.node, run_id=grid.run.run_id, object_id=name))

    def held(key: str, one: _Announced) -> dict[str, Any] | None:
        """The content of an answer, or the error in its place; None while it is not all there."""
        import httpx

        try:
            if not one.fetch(pull, bound):
                late_error = Error(ErrorCode.MESSAGE_UNAVAILABLE, "not sent in time")
                return {"error": late_error} if late() else None
            message: Any = inflate_object_from_contents(key, one.contents)
            return {"error": message.error} if message.has_error() else {"content": message.content}
        except httpx.HTTPError:
            raise
        except Exception:  # what was refused, and whatever Flower and numpy make of hostile bytes
            return {"error": Error(ErrorCode.UNKNOWN, MALFORMED)}

    def pull_messages(message_ids: Iterable[str]) -> list[Message]:
        # What was announced, the SuperLink has handed out: asked again, it would call that one lost.
        coming = {one.message.metadata.reply_to_message_id for one in open_.values()}
        asked = [key for key in message_ids if key not in coming]
        answer = client.PullMessages(PullAppMessagesRequest(message_ids=asked))
        for announced, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            try:
                ids = sorted(bound.ids(tree))
            except TooLarge:
                ids = [""]  # of no object, so that it is malformed
            open_[announced.metadata.message_id] = _Announced(announced, ids)
        found = []
        for key, one in list(open_.items()):
            if (content := held(key, one)) is None:
                continue
            del open_[key]
            client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(node=grid.node, run_id=grid.run.run_id, message_object_id=key)
            )
            found.append(make_message(metadata=metadata_from_proto(one.message.metadata), **content))
        return found

    return pull_messages


def malformed(message: Message) -> bool:
    """Whether a message with an error stands for an answer that was none."""
    from flwr.common.constant import ErrorCode

    return message.error.code == ErrorCode.UNKNOWN and message.error.reason == MALFORMED
