"""How large a message may be: known before anything of it is taken, from the model that it carries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flwr.proto.message_pb2 import ObjectTree

# Bytes of a message beside its arrays: its metadata, what is declared, what computed it.
WORDS = 64 * 2**10
# Bytes that Flower writes around each object, and numpy around each array.
AROUND = 2**10
# A message, its records, and a declaration.
RECORDS = 8


class TooLarge(Exception):
    """A message of more objects or bytes than its model needs."""


@dataclass(frozen=True)
class Bound:
    """The most objects, and bytes of them all, that a message comes to."""

    objects: int
    bytes: int

    @classmethod
    def of(cls, arrays: Iterable[int]) -> Bound:
        """Of a message that carries arrays of so many bytes each."""
        from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE as CHUNK

        sizes = list(arrays)
        # Flower cuts an array into chunks, which are objects as well.
        objects = RECORDS + sum(2 + size // CHUNK for size in sizes)
        return cls(objects, WORDS + objects * AROUND + sum(sizes))

    def ids(self, tree: ObjectTree) -> set[str]:
        """The ids of all objects below ``tree``; TooLarge where they are too many, however nested."""
        found: set[str] = set()
        open_, seen = [tree], 0
        while open_:
            node = open_.pop()
            seen += 1
            found.add(node.object_id)
            if seen + len(node.children) + len(open_) > self.objects:
                raise TooLarge(f"more than {self.objects} objects")
            open_ += node.children
        return found


# Where no plan says more: a model of sixteen million numbers, several times what any of Cordon's has.
ANY = Bound(objects=1000, bytes=64 * 2**20)
