"""Rounds in one process in which sites are away or their answers are lost."""

from __future__ import annotations

from collections.abc import Mapping

import killed_aggregation as room
from cordon.federation.flower.tasks import LinkLost


class Room(room.Room):
    """An exchange in which sites are ``away`` in some rounds, or their answers are ``lost``.

    Both by round: the names of the sites. In the round ``fails`` the link breaks after all have answered,
    or another ``error`` is raised.
    """

    def __init__(self, folder, *, away=None, lost=None, fails=0, error=None):
        super().__init__(folder)
        self.away, self.lost, self.fails = away or {}, lost or {}, fails
        self.error = error or LinkLost("the link broke")
        self.round = 1
        self.asked: list[tuple[int, str]] = []

    def online(self):
        return {
            one: node
            for one, node in super().online().items()
            if one.name not in self.away.get(self.round, "")
        }

    def ask(self, contents: Mapping, kind, deadline, *, group):
        if kind != "train":
            return super().ask(contents, kind, deadline, group=group)
        number = int(group)
        self.asked += [(number, one.name) for one in contents]
        answers = super().ask(contents, kind, deadline, group=group)
        if number == self.fails:
            self.fails = 0
            raise self.error
        self.round = number + 1
        return {one: (None, "") if one.name in self.lost.get(number, "") else a for one, a in answers.items()}
