"""Which candidate alleles are real: compared with a truth set inside its confident regions."""

from __future__ import annotations

import os
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pysam

from cordon.calls import Key
from cordon.errors import UserError
from cordon.reads import quiet
from cordon.regions import Regions, read_regions
from cordon.tables import LABELLED, TRUTH_ALLELES_KEY, TRUTH_FOUND_KEY
from cordon.variants import normalise_variants

StrPath = str | os.PathLike[str]
# A false candidate this near (bp) to a truth allele that no candidate matches may be that allele,
# written otherwise; it is neither true nor false.
AMBIGUOUS_WITHIN = 10

Truth = Mapping[str, set[Key]]


def label(table: pa.Table, *, truth: StrPath, confident: StrPath, reference: StrPath) -> pa.Table:
    """The variant table of one sample with ``label`` (1 real, 0 false, null unknown).

    Null is outside the confident regions, or within 10 bp of a truth allele without its candidate. The
    truth is split and left-aligned as the candidates were. The metadata hold the number of truth alleles
    inside the confident regions and how many of them are candidates. Raises UserError where truth,
    regions and reference do not belong together.
    """
    regions = read_regions(confident)
    known = read_truth(truth, reference, _sample(table))
    keys = list(
        zip(
            table["contig"].to_pylist(),
            table["position"].to_pylist(),
            table["ref"].to_pylist(),
            table["alt"].to_pylist(),
            strict=True,
        )
    )
    labels = _labels(keys, known, regions)
    inside = sum(_inside(regions, contig, key) for contig, alleles in known.items() for key in alleles)
    metadata = {
        **(table.schema.metadata or {}),
        TRUTH_ALLELES_KEY: str(inside).encode(),
        TRUTH_FOUND_KEY: str(labels.count(1)).encode(),
    }
    column = pa.array(labels, type=pa.int8())
    return table.append_column(LABELLED.field("label"), column).replace_schema_metadata(metadata)


def read_truth(truth: StrPath, reference: StrPath, sample: str | None) -> Truth:
    """The truth alleles by contig, split and left-aligned.

    The genotype of ``sample`` counts when the file holds it, else that of its only sample; a file
    without samples is taken to hold only real alleles.
    """
    try:
        with quiet(), pysam.VariantFile(os.fspath(truth)) as records:
            samples = list(records.header.samples)
    except (OSError, ValueError) as error:
        raise UserError(f"{truth}: not a readable VCF ({error}). Copy it again.") from error
    if sample not in samples:
        if len(samples) > 1:
            raise UserError(
                f"{truth}: holds samples {', '.join(samples)}, none of them {sample}. "
                "Give the truth of this sample."
            )
        sample = samples[0] if samples else None
    alleles: dict[str, set[Key]] = {}
    with tempfile.TemporaryDirectory() as folder:
        normalised = Path(folder) / "truth.vcf.gz"
        normalise_variants(vcf=truth, reference=reference, sample=sample, output=normalised)
        with quiet(), pysam.VariantFile(str(normalised)) as records:
            for record in records:
                key = (record.pos, record.ref.upper(), record.alts[0].upper())
                alleles.setdefault(record.contig, set()).add(key)
    return alleles


def _labels(keys: Sequence[tuple[str, int, str, str]], truth: Truth, regions: Regions) -> list[int | None]:
    candidates: dict[str, set[Key]] = {}
    for contig, position, ref, alt in keys:
        candidates.setdefault(contig, set()).add((position, ref, alt))
    missed = {
        contig: sorted(_spans(alleles - candidates.get(contig, set()))) for contig, alleles in truth.items()
    }
    labels: list[int | None] = []
    for contig, position, ref, alt in keys:
        key = (position, ref, alt)
        if not _inside(regions, contig, key):
            labels.append(None)
        elif key in truth.get(contig, ()):
            labels.append(1)
        else:
            labels.append(None if _near(missed.get(contig, []), key) else 0)
    return labels


def _spans(alleles: Iterable[Key]) -> Iterable[tuple[int, int]]:
    return ((position, position + len(ref)) for position, ref, _ in alleles)


def _near(missed: list[tuple[int, int]], key: Key) -> bool:
    """Whether an unmatched truth allele (sorted spans) lies within AMBIGUOUS_WITHIN bp of the allele."""
    start, end = key[0] - AMBIGUOUS_WITHIN, key[0] + len(key[1]) + AMBIGUOUS_WITHIN
    # A span that begins before `start` can still reach into the stretch: deletions are seldom longer.
    first = bisect_left(missed, (start - 1000, 0))
    for span_start, span_end in missed[first:]:
        if span_start >= end:
            return False
        if span_end > start:
            return True
    return False


def _inside(regions: Regions, contig: str, key: Key) -> bool:
    position, ref, _ = key
    return regions.hold(contig, position - 1, position - 1 + len(ref))


def _sample(table: pa.Table) -> str | None:
    """The one sample of a table, None for a table without rows."""
    samples = table["sample"].unique().to_pylist()
    if len(samples) > 1:
        raise UserError(f"The variant table holds samples {', '.join(samples)}; label one sample at a time.")
    return samples[0] if samples else None
