"""Where gradients are computed: on a GPU or on so many CPU threads. torch is imported only then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cordon.errors import UserError

if TYPE_CHECKING:
    import torch

THREADS_VARIABLE = "CORDON_THREADS"


def device() -> torch.device:
    """Where gradients are computed: a GPU when there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def thread_count(threads: int | None) -> Iterator[None]:
    """Compute with ``threads`` CPU threads, by default CORDON_THREADS or else torch's own number."""
    import torch

    asked = os.environ.get(THREADS_VARIABLE) or None if threads is None else str(threads)
    before = torch.get_num_threads()
    if asked is not None:
        if not asked.isdecimal() or int(asked) < 1:
            raise UserError(
                f"{asked!r} is no number of threads. Set {THREADS_VARIABLE} to a whole number from 1."
            )
        torch.set_num_threads(int(asked))
    try:
        yield
    finally:
        torch.set_num_threads(before)
