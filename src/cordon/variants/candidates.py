"""The candidates of a sample: the union of its callers' alleles, a stretch of a contig at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cordon.arrays import Floats
from cordon.calls.callers import ANNOTATIONS, CALLERS, PREFERENCE
from cordon.calls.read import CALLS, CallSet
from cordon.variants.context import Alleles
from cordon.variants.resources import allele_keys

KEYS = ["position", "ref", "alt"]


@dataclass(frozen=True)
class Candidates:
    """One row an allele, sorted by position, ref and alt, all of one contig.

    ``calls`` has for each of CALLERS a table (schema CALLS) of as many rows, null where it did not call.
    ``before`` and ``after`` are the positions of the nearest candidates beyond the stretch (bp, 1-based),
    infinite at the contig's ends.
    """

    contig: str
    keys: pa.Table
    calls: Mapping[str, pa.Table]
    before: float = -np.inf
    after: float = np.inf

    @property
    def positions(self) -> NDArray[np.int64]:
        """1-based, int64 [n]."""
        positions: NDArray[np.int64] = self.keys["position"].to_numpy()
        return positions

    @property
    def alleles(self) -> Alleles:
        """The alleles as the reads and the sequence are compared with them."""
        return Alleles(self.positions - 1, self.keys["ref"].to_pylist(), self.keys["alt"].to_pylist())

    def quals(self) -> dict[str, Floats]:
        """Each caller's QUAL (phred), NaN where it did not call the allele."""
        return {caller: self.calls[caller]["qual"].to_numpy() for caller in CALLERS}

    def annotations(self) -> dict[str, Floats]:
        """Each of ANNOTATIONS, float64 [n], from the first of PREFERENCE that says it."""
        values = {name: np.full(self.keys.num_rows, np.nan) for name in ANNOTATIONS}
        for caller in reversed(PREFERENCE):
            for name in ANNOTATIONS:
                said = self.calls[caller][name].to_numpy()
                values[name] = np.where(np.isnan(said), values[name], said)
        return values


def union(sets: Sequence[CallSet], contig: str) -> Iterator[Candidates]:
    """The candidates on a contig, some ten thousand at a time; memory does not grow with their number."""
    waiting: Candidates | None = None
    for stretch in _stretches({called.caller: called.read(contig) for called in sets}):
        found = _joined(contig, stretch)
        if waiting is not None:
            found = replace(found, before=float(waiting.positions[-1]))
            yield replace(waiting, after=float(found.positions[0]))
        waiting = found
    if waiting is not None:
        yield waiting


def _stretches(streams: Mapping[str, Iterator[pa.Table]]) -> Iterator[dict[str, pa.Table]]:
    """The callers' tables cut at common positions, so that no position is in two stretches."""
    held = {caller: CALLS.empty_table() for caller in streams}
    running = set(streams)
    while True:
        for caller in list(running):
            # A caller's last position may go on in its next batch, so two positions must be there.
            while caller in running and not _spans(held[caller]):
                batch = next(streams[caller], None)
                if batch is None:
                    running.discard(caller)
                else:
                    held[caller] = pa.concat_tables([held[caller], batch])
        ends = [int(held[caller]["position"][-1].as_py()) for caller in running]
        limit = min(ends) if ends else np.iinfo(np.int64).max
        stretch = {}
        for caller, table in held.items():
            rows = int(np.searchsorted(table["position"].to_numpy(), limit, side="left"))
            stretch[caller], held[caller] = table.slice(0, rows), table.slice(rows)
        if any(table.num_rows for table in stretch.values()):
            yield stretch
        if not running and not any(table.num_rows for table in held.values()):
            return


def _spans(table: pa.Table) -> bool:
    return bool(table.num_rows and table["position"][0] != table["position"][-1])


def _joined(contig: str, stretch: Mapping[str, pa.Table]) -> Candidates:
    tables = {caller: stretch.get(caller, CALLS.empty_table()) for caller in CALLERS}
    texts = {caller: allele_keys(*(table[name] for name in KEYS)) for caller, table in tables.items()}
    every = pa.concat_tables([table.select(KEYS) for table in tables.values()])
    codes = pa.concat_arrays(list(texts.values())).dictionary_encode().indices.to_numpy()
    first = np.unique(codes, return_index=True)[1]
    keys = every.take(pa.array(first)).combine_chunks()
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in KEYS])
    keys = keys.take(order)
    wanted = allele_keys(*(keys[name] for name in KEYS))
    calls = {caller: table.take(pc.index_in(wanted, texts[caller])) for caller, table in tables.items()}
    return Candidates(contig, keys, calls)
