"""Which candidate alleles are real: compared with a truth set inside its confident regions."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pysam

from cordon.arrays import Bools, Ints
from cordon.calls.head import read_head
from cordon.calls.normalise import normalise_variants
from cordon.errors import UserError
from cordon.files import StrPath
from cordon.genome.contigs import read_aliases
from cordon.genome.reference import read_fai
from cordon.genome.regions import Regions, read_regions
from cordon.steps import Steps, Tick, silent
from cordon.variants.haplotypes import REACH
from cordon.variants.resources import allele_keys, read_contig
from cordon.variants.spellings import Allele, repeats_of, respelled, whole_haplotypes
from cordon.variants.table import (
    LABELLED,
    TRUTH_ALLELES_KEY,
    TRUTH_FOUND_KEY,
    VARIANTS,
    read_batches,
    rows_of,
    with_images_of,
    write_batches,
)

# A false candidate this near (bp) to a truth allele that no candidate matches may be that allele,
# written otherwise; it is neither true nor false.
AMBIGUOUS_WITHIN = 10
NOWHERE = -(1 << 62)
# What the labels of a table rest on.
SOURCE_KEY = b"cordon.variants.labels"
TRUTH_SET, KNOWN_SITES = b"truth set", b"known sites"


@dataclass
class TruthContig:
    """The truth alleles of one contig, sorted: 1-based ``starts``, ``ends`` past REF, and ``keys`` [n].

    ``inside`` says which lie in a confident region, ``found`` which are candidates, as they are or, once
    `respell` has looked, written otherwise. ``others`` are the candidates near them that are none of them;
    of these ``real`` has those that write some otherwise, and ``unknown`` those of which that is not known.
    """

    alleles: pa.Table
    starts: Ints
    ends: Ints
    keys: pa.Array
    inside: Bools
    found: Bools = field(init=False)
    others: list[Allele] = field(default_factory=list)
    real: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))
    unknown: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))

    def __post_init__(self) -> None:
        self.found = np.zeros(len(self.starts), dtype=np.bool_)

    def respell(self, sequence: str) -> None:
        """Compare haplotypes of ``others`` and truth alleles over the contig's ``sequence``."""
        truth = _allele_list(self.alleles)
        result = respelled(self.others, truth, self.found, sequence)
        self.found[list(result.found)] = True
        self.real, self.unknown = (
            allele_keys(*zip(*sorted(found), strict=True)) if found else pa.array([], pa.string())
            for found in (result.real, result.unknown)
        )

    def places(self, positions: Ints, keys: pa.Array) -> pa.Array:
        """The index [n] of each candidate among the truth alleles, null where it is none."""
        first, last = np.searchsorted(self.starts, [positions.min(), positions.max() + 1])
        return pc.add(pc.index_in(keys, self.keys.slice(first, last - first)), first)

    def missed(self) -> tuple[Ints, Ints]:
        """Starts of the alleles that no candidate matches, and how far those up to each one reach."""
        rest = ~self.found
        return self.starts[rest], np.maximum.accumulate(self.ends[rest])


Truth = Mapping[str, TruthContig]


def label_variants(
    variants: StrPath,
    output: StrPath,
    *,
    sample: str,
    reference: StrPath,
    truth: StrPath,
    confident: StrPath,
    aliases: StrPath | None = None,
    passing: bool = True,
    steps: Steps = silent,
) -> None:
    """Write the variant table of one sample with ``label`` (1 real, 0 false, null unknown), by a truth set.

    A candidate is real when the truth holds its allele, whatever the genotype, or when candidates that it
    is one of spell what truth alleles spell (`cordon.variants.spellings`); the truth is split and
    left-aligned as the candidates were. Null is outside the confident regions, or within 10 bp of a truth
    allele without its candidate, or where spellings were not decided. The metadata hold the number of truth
    alleles inside the confident regions, those that were found counted as candidates spell them and once,
    and how many were found. ``sample`` is the name in the truth; ``aliases`` maps contig names of truth and
    regions to the reference's. The table is read twice, a row group at a time.
    Raises UserError where table, truth, regions and reference do not belong together.
    """
    names = read_aliases(aliases)
    contigs = read_fai(f"{os.fspath(reference)}.fai")
    regions = read_regions(confident)
    regions = _renamed(regions, names.resolve(regions.contigs, contigs))
    known = read_truth(truth, reference, sample, regions, aliases=aliases, passing=passing, steps=steps)
    with steps("comparing with the truth", rows_of(variants), "candidates") as tick:
        for batch in batches_of_one_sample(variants, tick):
            _find(batch, known)
    missed = 0
    metadata = {SOURCE_KEY: TRUTH_SET}
    with pysam.FastaFile(os.fspath(reference)) as fasta:
        for name, contig in known.items():
            if contig.others:
                contig.respell(fasta.fetch(name).upper())
            missed += int((contig.inside & ~contig.found).sum())
        with steps("labelling", rows_of(variants), "candidates") as tick:
            batches = read_batches(variants, with_images_of(variants, VARIANTS), tick)

            def labelled(found: int = 0) -> Iterator[pa.Table]:
                for batch in whole_haplotypes(batches):
                    labels = _labels(batch, known, regions)
                    again = [row for _, rows in repeats_of(batch, fasta) for row in rows]
                    real = pc.equal(labels, 1).fill_null(False).to_numpy(zero_copy_only=False)
                    real[again] = False
                    found += int(real.sum())
                    yield with_labels(batch, labels)
                metadata[TRUTH_ALLELES_KEY] = str(missed + found).encode()
                metadata[TRUTH_FOUND_KEY] = str(found).encode()

            write_batches(output, with_images_of(variants, LABELLED), labelled(), metadata=metadata)


def read_truth(
    truth: StrPath,
    reference: StrPath,
    sample: str,
    regions: Regions,
    *,
    aliases: StrPath | None = None,
    passing: bool = True,
    steps: Steps = silent,
) -> Truth:
    """The truth alleles by contig, split and left-aligned.

    The genotype of ``sample`` counts when the file holds it, else that of its only sample; a file
    without samples is taken to hold only real alleles. With ``passing`` a record counts where its FILTER is
    PASS or missing.
    """
    with tempfile.TemporaryDirectory() as folder:
        normalised = Path(folder) / "truth.vcf.gz"
        done = normalise_variants(
            vcf=truth,
            reference=reference,
            sample=_truth_sample(truth, sample),
            output=normalised,
            aliases=aliases,
            passing=passing,
            steps=steps,
        )
        if done.filtered and not done.kept:
            raise UserError(
                f"{truth}: none of its alleles counts, and a filter failed {done.filtered} of its records "
                "(FILTER is neither PASS nor missing). If they are real all the same, set --filtered_records "
                "keep."
            )
        with pysam.VariantFile(str(normalised)) as records:
            contigs = list(records.index)
        return {contig: _truth_contig(read_contig(normalised, contig), contig, regions) for contig in contigs}


def batches_of_one_sample(variants: StrPath, tick: Tick | None = None) -> Iterator[pa.Table]:
    """The row groups of a variant table; UserError once they hold a second sample."""
    samples: set[str] = set()
    for batch in read_batches(variants, VARIANTS, tick):
        samples.update(pc.unique(batch["sample"]).to_pylist())
        if len(samples) > 1:
            raise UserError(f"{variants}: holds more than one sample. Label one sample at a time.")
        yield batch


def with_labels(batch: pa.Table, labels: pa.Array) -> pa.Table:
    """The batch of a table of VARIANTS as one of LABELLED; any images stay behind."""
    return batch.add_column(len(VARIANTS), LABELLED.field("label"), labels)


def by_contig(batch: pa.Table) -> Iterator[tuple[str, Bools | slice, pa.Table]]:
    """(contig, its rows, the part of the batch) for each contig of a batch."""
    contigs = pc.unique(batch["contig"]).to_pylist()
    for contig in contigs:
        if len(contigs) == 1:
            yield contig, slice(None), batch
        else:
            rows = pc.equal(batch["contig"], contig)
            yield contig, rows.to_numpy(), batch.filter(rows)


def _truth_sample(truth: StrPath, sample: str) -> str | None:
    samples = read_head(truth).samples
    if sample not in samples and len(samples) > 1:
        raise UserError(
            f"{truth}: holds samples {', '.join(samples)}, none of them {sample}. "
            "Give the truth of this sample."
        )
    return sample if sample in samples else next(iter(samples), None)


def _truth_contig(alleles: pa.Table, contig: str, regions: Regions) -> TruthContig:
    starts = alleles["position"].to_numpy()
    ends = starts + pc.binary_length(alleles["ref"]).to_numpy()
    keys = allele_keys(alleles["position"], alleles["ref"], alleles["alt"])
    return TruthContig(alleles, starts, ends, keys, regions.hold(contig, starts - 1, ends - 1))


def _find(batch: pa.Table, truth: Truth) -> None:
    """Mark the truth alleles that are candidates of the batch, and note what else is near truth alleles."""
    for contig, _, part in by_contig(batch):
        if contig in truth:
            held, starts = truth[contig], part["position"].to_numpy()
            places = held.places(starts, _keys(part))
            held.found[places.drop_null().to_numpy()] = True
            ends = starts + pc.binary_length(part["ref"]).to_numpy()
            reach = np.maximum.accumulate(held.ends)
            near = _near(held.starts, reach, starts, ends, within=REACH)
            held.others += _allele_list(part.filter(pa.array(near & ~places.is_valid().to_numpy(False))))


def _labels(batch: pa.Table, truth: Truth, regions: Regions) -> pa.Array:
    """int8 [rows], once every candidate has been found in the truth."""
    labels = np.zeros(batch.num_rows, dtype=np.int8)
    unknown = np.zeros(batch.num_rows, dtype=np.bool_)
    for contig, rows, part in by_contig(batch):
        starts = part["position"].to_numpy()
        ends = starts + pc.binary_length(part["ref"]).to_numpy()
        real = near = np.zeros(len(starts), dtype=np.bool_)
        if contig in truth:
            held, keys = truth[contig], _keys(part)
            real = held.places(starts, keys).is_valid().to_numpy(zero_copy_only=False)
            real = real | pc.is_in(keys, held.real).to_numpy(zero_copy_only=False)
            near = _near(*held.missed(), starts, ends)
            near = near | pc.is_in(keys, held.unknown).to_numpy(zero_copy_only=False)
        labels[rows] = real
        unknown[rows] = ~regions.hold(contig, starts - 1, ends - 1) | (near & ~real)
    return pa.array(labels, mask=unknown)


def _near(sought: Ints, reach: Ints, starts: Ints, ends: Ints, *, within: int = AMBIGUOUS_WITHIN) -> Bools:
    """Whether [n] one of ``sought`` (sorted starts, running maximum of ends) is within so many bp."""
    before = np.searchsorted(sought, ends + within)
    furthest = np.concatenate([[NOWHERE], reach])[before]
    near: Bools = furthest > starts - within
    return near


def _allele_list(alleles: pa.Table) -> list[Allele]:
    columns = [alleles["position"], pc.utf8_upper(alleles["ref"]), pc.utf8_upper(alleles["alt"])]
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def _keys(part: pa.Table) -> pa.Array:
    return allele_keys(part["position"], part["ref"], part["alt"])


def _renamed(regions: Regions, names: Mapping[str, str]) -> Regions:
    return Regions(
        {names.get(contig, contig): starts for contig, starts in regions.starts.items()},
        {names.get(contig, contig): ends for contig, ends in regions.ends.items()},
    )
