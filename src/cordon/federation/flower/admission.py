"""What the SuperLink takes of a SuperNode: answers to what it was asked, in its own name, of a bounded size.

Flower checks that a request's node is the one whose key signed it; it does not look at whom a message says
that it is from, whom it is for, or how large it grows. Each handler here stands before one of Flower's.
"""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from cordon.federation.flower.bounds import WORDS, Bound, TooLarge

Handler = Callable[..., Any]


@dataclass
class _Answer:
    """The answer to one message: what it is made of, as announced, and the bytes that came of each part."""

    tree: bytes
    sizes: dict[str, int]


@dataclass
class _Node:
    """What was asked of a SuperNode, and its answers to it."""

    asked: dict[str, _Answer | None] = field(default_factory=dict)
    parts: dict[str, _Answer] = field(default_factory=dict)


class Admission:
    """Wraps Flower's fleet handlers; each answer may come to ``bound``."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._nodes: defaultdict[int, _Node] = defaultdict(_Node)
        self._refused: set[str] = set()
        self._lock = threading.Lock()

    def install(self, handlers: Any, aggregators: Any) -> None:
        """Stand before Flower's functions: SuperNodes' (``handlers``), its own app's (``aggregators``)."""
        aggregators.pull_object = self._taken(aggregators.pull_object)
        for name in ("pull_messages", "push_messages", "push_object", "confirm_message_received"):
            setattr(handlers, name, getattr(self, f"_{name}")(getattr(handlers, name)))

    def _pull_messages(self, handler: Handler) -> Handler:
        def pulled(request: Any, **others: Any) -> Any:
            response = handler(request=request, **others)
            with self._lock:
                for message in response.messages_list:
                    self._nodes[request.node.node_id].asked.setdefault(message.metadata.message_id, None)
            return response

        return pulled

    def _push_messages(self, handler: Handler) -> Handler:
        def pushed(request: Any, **others: Any) -> Any:
            with self._lock:
                self._announced(request)
            return handler(request=request, **others)

        return pushed

    def _announced(self, request: Any) -> None:
        from flwr.common.constant import SUPERLINK_NODE_ID

        if not len(request.messages_list) == len(request.message_object_trees) == 1:
            _refuse(403, "one message at a time")
        message, tree, node = request.messages_list[0], request.message_object_trees[0], request.node.node_id
        said, asked = message.metadata, self._nodes[node].asked
        if said.src_node_id != node:
            _refuse(403, "a message in another's name")
        if said.dst_node_id != SUPERLINK_NODE_ID or said.reply_to_message_id not in asked:
            _refuse(403, "a SuperNode only answers what it was asked")
        if message.ByteSize() > WORDS:
            _refuse(413, "a message carries its content as objects")
        try:
            ids = self._bound.ids(tree)
        except TooLarge as error:
            _refuse(413, str(error))
        digest = hashlib.sha256(tree.SerializeToString(deterministic=True)).digest()
        before = asked[said.reply_to_message_id]
        if before is not None and before.tree != digest:
            _refuse(403, "another answer to the same message")
        if before is None:
            answer = asked[said.reply_to_message_id] = _Answer(digest, dict.fromkeys(ids, 0))
            self._nodes[node].parts.update(dict.fromkeys(ids, answer))

    def _push_object(self, handler: Handler) -> Handler:
        def pushed(request: Any, **others: Any) -> Any:
            with self._lock:
                answer = self._nodes[request.node.node_id].parts.get(request.object_id)
                if answer is None:
                    _refuse(403, "an object of no message that was announced")
                answer.sizes[request.object_id] = len(request.object_content)
                if sum(answer.sizes.values()) > self._bound.bytes:
                    self._refused |= set(answer.sizes)
                    _refuse(413, f"a message may have {self._bound.bytes} bytes")
            return handler(request=request, **others)

        return pushed

    def _taken(self, handler: Handler) -> Handler:
        """What was refused will never be there: nobody waits for it."""

        def taken(request: Any, *others: Any, **named: Any) -> Any:
            response = handler(request, *others, **named)
            if request.object_id in self._refused:
                response.object_found = False
            return response

        return taken

    def _confirm_message_received(self, handler: Handler) -> Handler:
        def confirmed(request: Any, **others: Any) -> Any:
            if request.message_object_id not in self._nodes[request.node.node_id].asked:
                _refuse(403, "a message of another SuperNode")
            return handler(request=request, **others)

        return confirmed


def _refuse(status: int, reason: str) -> NoReturn:
    from starlette.exceptions import HTTPException

    raise HTTPException(status, reason)
