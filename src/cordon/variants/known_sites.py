"""Labels without a truth set: known sites are real, and the calls least like them are false."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cordon.arrays import Bools, Floats, Singles
from cordon.errors import UserError
from cordon.files import StrPath
from cordon.steps import Steps, silent
from cordon.variants import resources
from cordon.variants.features import CONTEXT, FEATURES
from cordon.variants.labels import KNOWN_SITES, SOURCE_KEY, batches_of_one_sample, by_contig, with_labels
from cordon.variants.strata import SNV
from cordon.variants.table import (
    LABELLED,
    VARIANTS,
    matrix,
    read_batches,
    rows_of,
    with_images_of,
    write_batches,
)

# SNVs and indels are judged apart, because the same annotation means different things for them.
KINDS = ("SNVs", "indels")
# A call that is not known is false when it scores below this share of the known ones held out of the forest.
# Chosen on NA12878's real calls with half of the truth as known sites: at 0.95 more negatives are real,
# at 0.99 they are purer, but a third fewer.
SENSITIVITY = 0.975
# Known sites of a kind: with fewer there are no labels for the kind; of more, an even selection is enough.
FEWEST, MOST = 100, 50_000
_EVIDENCE = [place for place, name in enumerate(FEATURES) if name not in CONTEXT]


class Forest(Protocol):
    """A fitted isolation forest."""

    def score_samples(self, evidence: Singles, /) -> Floats:
        """How ordinary [n] each row is, higher meaning more like the known sites."""


def label_by_known_sites(
    variants: StrPath, output: StrPath, *, known_sites: Sequence[StrPath], steps: Steps = silent
) -> list[str]:
    """Write the variant table of one sample with ``label`` (1 real, 0 false, null unknown), by resources.

    Real are the candidates that one of the known-sites VCFs holds. An isolation forest learns what the
    annotations of every other known candidate look like; false are the candidates that no resource holds
    and that score below what SENSITIVITY of the remaining known candidates reach; the others are unknown.
    SNVs and indels each have their own forest, and no labels at all where fewer than FEWEST are known:
    the kinds left out so are returned. This is the positive-only way of GATK's ExtractVariantAnnotations,
    TrainVariantAnnotationsModel and ScoreVariantAnnotations (VETS) with scikit-learn's defaults, as GATK
    has them (F. T. Liu et al., "Isolation forest", ICDM 2008). Its labels are worse than a truth set's: a
    known site may be an artefact here, and a true allele of odd evidence may count as false.

    Privacy: the labels depend on this sample's rows and on public files, never on another sample. They do
    depend on several rows at once, so they suit the privacy unit patient and not the unit variant.
    Raises UserError where no kind has enough known candidates.
    """
    known: list[Bools] = []
    positives = {kind: Selection() for kind in KINDS}
    with steps("looking up known sites", rows_of(variants), "candidates") as tick:
        for batch in batches_of_one_sample(variants, tick):
            known.append(_known(batch, known_sites))
            for kind, rows in _kinds(batch):
                positives[kind].add(_evidence(batch)[rows & known[-1]])
    judges = {kind: _judge(chosen.rows()) for kind, chosen in positives.items()}
    missing = [kind for kind in KINDS if judges[kind] is None]
    if len(missing) == len(KINDS):
        raise UserError(
            f"{variants}: too few candidates are known sites to label by: fewer than {FEWEST} SNVs and fewer "
            f"than {FEWEST} indels are in {', '.join(map(str, known_sites))}. Give known sites of the same "
            "reference that cover the called regions, or label with a truth VCF and confident BED."
        )
    with steps("labelling", rows_of(variants), "candidates") as tick:
        batches = read_batches(variants, with_images_of(variants, VARIANTS), tick)
        labelled = (
            with_labels(batch, _labels(batch, held, judges))
            for batch, held in zip(batches, known, strict=True)
        )
        metadata = {SOURCE_KEY: KNOWN_SITES}
        write_batches(output, with_images_of(variants, LABELLED), labelled, metadata=metadata)
    return missing


class Selection:
    """Rows of a stream, evenly spread over it: every one at first, then every second, fourth and so on."""

    def __init__(self, most: int = MOST) -> None:
        self._most, self._seen, self._step = most, 0, 1
        self._kept: list[Singles] = []

    def add(self, rows: Singles) -> None:
        """Take what belongs to the selection of the next rows [n, F] of the stream."""
        self._kept.append(rows[-self._seen % self._step :: self._step])
        self._seen += len(rows)
        while sum(map(len, self._kept)) > self._most:
            self._kept = [self.rows()[::2]]
            self._step *= 2

    def rows(self) -> Singles:
        """The rows selected so far."""
        return np.concatenate(self._kept) if self._kept else np.empty((0, len(_EVIDENCE)), np.float32)


def _judge(positives: Singles) -> tuple[Forest, float] | None:
    """A forest and the score below which a call is false; None with too few positives [n, F]."""
    from sklearn.ensemble import IsolationForest

    if len(positives) < FEWEST:
        return None
    # A fixed state: the same rows have the same labels on every run and every resume.
    forest: Forest = IsolationForest(random_state=0).fit(positives[::2])
    return forest, float(np.quantile(forest.score_samples(positives[1::2]), 1 - SENSITIVITY))


def _labels(batch: pa.Table, known: Bools, judges: dict[str, tuple[Forest, float] | None]) -> pa.Array:
    """int8 [rows]."""
    unknown = np.ones(batch.num_rows, dtype=np.bool_)
    evidence = _evidence(batch)
    for kind, rows in _kinds(batch):
        judge = judges[kind]
        if judge is None:
            continue
        forest, threshold = judge
        unknown[rows & known] = False
        asked = np.flatnonzero(rows & ~known)
        if asked.size:
            unknown[asked] = forest.score_samples(evidence[asked]) >= threshold
    return pa.array(known.astype(np.int8), mask=unknown)


def _known(batch: pa.Table, known_sites: Sequence[StrPath]) -> Bools:
    held = np.zeros(batch.num_rows, dtype=np.bool_)
    for contig, rows, part in by_contig(batch):
        positions = part["position"].to_numpy()
        held[rows] = resources.known(known_sites, contig, positions, part["ref"], part["alt"])
    return held


def _kinds(batch: pa.Table) -> Iterator[tuple[str, Bools]]:
    snv = pc.equal(batch["variant_type"], SNV).to_numpy()
    yield from zip(KINDS, (snv, ~snv), strict=True)


def _evidence(batch: pa.Table) -> Singles:
    """float32 [rows, F] of the features that are not context."""
    return matrix(batch)[:, _EVIDENCE]
