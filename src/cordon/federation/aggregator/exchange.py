"""Messages to the sites and back over Flower's Grid, by site; keys decide who is who, not names."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cordon.federation.aggregator.judge import Answer
from cordon.federation.flower.collecting import MALFORMED, malformed
from cordon.federation.flower.tasks import LOST, LinkLost, noticing_loss, raised_at_site
from cordon.federation.messages import MalformedMessage, Reply
from cordon.federation.pace import brisk
from cordon.federation.plan import Site

if TYPE_CHECKING:
    from flwr.app import Message, RecordDict
    from flwr.serverapp import Grid


class Exchange:
    """Sends to enrolled sites over ``grid`` and gathers their answers; LinkLost when not ``alive()``."""

    def __init__(self, grid: Grid, sites: Sequence[Site], alive: Callable[[], bool] = lambda: True) -> None:
        self._grid, self._alive = grid, alive
        self._by_key = {site.public_key: site for site in sites}
        self._until = 0.0

    def online(self) -> dict[Site, int]:
        """Node ids of the enrolled sites that are connected now."""
        self.check()
        # Flower's client raises many things when there is nobody left to reach.
        with noticing_loss(self._alive, Exception):
            nodes: list[Any] = list(self._grid.get_nodes())
        return {
            self._by_key[node.public_key.decode()]: node.node_id
            for node in nodes
            if node.public_key.decode() in self._by_key
        }

    def ask(
        self, contents: Mapping[Site, RecordDict], kind: str, deadline: float, *, group: str
    ) -> dict[Site, Answer]:
        """Send every site that is there its content, and what came of it within ``deadline`` seconds."""
        nodes = self.online()
        there = {nodes[site]: content for site, content in contents.items() if site in nodes}
        with noticing_loss(self._alive, Exception):
            replies = self._exchange(there, kind, deadline, group=group)
        return {site: read(replies.get(nodes.get(site, -1))) for site in contents}

    def late(self) -> bool:
        """Whether the deadline of what was asked last is over."""
        self.check()
        return time.monotonic() > self._until

    def check(self) -> None:
        if not self._alive():
            raise LinkLost(LOST)

    def _exchange(
        self, contents: dict[int, RecordDict], kind: str, deadline: float, *, group: str
    ) -> dict[int, Message]:
        """Send each node its content and gather what comes back within ``deadline`` seconds, by node."""
        from flwr.app import Message

        if not contents:
            return {}
        # Messages die with the round, so a late update is never taken for another round's.
        messages = [
            Message(content, node, kind, ttl=deadline, group_id=group) for node, content in contents.items()
        ]
        # The SuperLink gives no id to a message that it did not take, for a node that has just gone.
        pushed = zip(self._grid.push_messages(messages), contents, strict=True)
        ids = {key: node for key, node in pushed if key}
        replies: dict[int, Message] = {}
        self._until = time.monotonic() + deadline
        over, pace = False, brisk()
        # Once more after the deadline: one reply that is awaited until then must not cost the others.
        while len(replies) < len(ids) and not over:
            over = self.late()
            open_ids = [key for key, node in ids.items() if node not in replies]
            for message in self._grid.pull_messages(open_ids):
                # An error made by the SuperLink names another sender: what it answers is what counts.
                if (node := ids.get(message.metadata.reply_to_message_id)) is not None:
                    replies[node] = message
            self.check()
            pace.wait()
        return replies


def read(message: Message | None) -> Answer:
    """A message as a reply, or the fault for which it is none; missing and unreachable are no fault."""
    if message is None:
        return None, ""
    if message.has_error() and malformed(message):
        return None, MALFORMED
    if message.has_error():
        failed = raised_at_site(message)
        return None, "the site refused the task or failed at it; its own log says why" if failed else ""
    try:
        return Reply.from_records(message.content), ""
    except MalformedMessage as error:
        return None, str(error)
