"""Taking what came in, within bounds: the aggregator its sites' answers, a SuperNode its tasks.

What a message is an answer to, and whose, is what was announced to the SuperLink, which knows who announced
it; what the message's own content says of that is its sender's word, and counts for nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from cordon.federation.flower.bounds import Bound, TooLarge
from cordon.federation.flower.object_pull import awaiting

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


def collecting(
    grid: HttpGrid, late: Callable[[], bool], bound: Bound
) -> Callable[[Iterable[str]], list[Message]]:
    """In place of ``grid.pull_messages``: an answer's arrays as soon as they are there, none once it is late.

    A site's malformed answer is an error of its own (MALFORMED), and ends nothing but its part in the round.
    """
    from flwr.app.error import Error
    from flwr.app.message import make_message
    from flwr.common.constant import ErrorCode
    from flwr.common.serde_utils import metadata_from_proto
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
    from flwr.proto.runtime_pb2 import PullAppMessagesRequest
    from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
    from flwr.supercore.inflatable.inflatable_utils import (
        ObjectPullError,
        inflate_object_from_contents,
        pull_objects,
    )

    client = grid._runtime_client

    def content_of(announced: Any, tree: Any) -> dict[str, Any]:
        pulls = Pulls(bound)
        pulls.announced(tree)
        pull = make_pull_object_fn_protobuf(
            pulls.counting(awaiting(client.PullObject, late)), grid.node, grid.run.run_id
        )
        contents = pull_objects(sorted(bound.ids(tree)), pull)
        message: Any = inflate_object_from_contents(announced.metadata.message_id, contents)
        return {"error": message.error} if message.has_error() else {"content": message.content}

    def pull_messages(message_ids: Iterable[str]) -> list[Message]:
        import httpx

        found = []
        answer = client.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
        for announced, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            try:
                held = content_of(announced, tree)
            except httpx.HTTPError:
                raise
            except ObjectPullError as error:
                held = {"error": Error(ErrorCode.MESSAGE_UNAVAILABLE, str(error))}
            except Exception:  # whatever Flower and numpy make of hostile bytes
                held = {"error": Error(ErrorCode.UNKNOWN, MALFORMED)}
            client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(
                    node=grid.node, run_id=grid.run.run_id, message_object_id=announced.metadata.message_id
                )
            )
            found.append(make_message(metadata=metadata_from_proto(announced.metadata), **held))
        return found

    return pull_messages


def malformed(message: Message) -> bool:
    """Whether a message with an error stands for an answer that was none."""
    from flwr.common.constant import ErrorCode

    return message.error.code == ErrorCode.UNKNOWN and message.error.reason == MALFORMED
