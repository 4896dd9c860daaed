"""A sample's candidates as a variant table with features, a stretch of the genome at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pysam

from cordon.calls.callers import CALLERS
from cordon.calls.read import CallSet
from cordon.errors import UserError
from cordon.files import StrPath, read_json
from cordon.reads.normalise import open_alignments
from cordon.steps import Steps, silent
from cordon.variants import context, pileup, resources, strata
from cordon.variants.candidates import Candidates, union
from cordon.variants.features import FEATURES, features
from cordon.variants.pileup_images import Images
from cordon.variants.table import PILEUP, VARIANTS


@dataclass(frozen=True)
class SampleIdentity:
    """Whose rows they are: the site, and salted pseudonyms of patient and sample."""

    site: str
    patient: str
    sample: str

    @classmethod
    def read(cls, path: StrPath, site: str) -> SampleIdentity:
        """The pseudonyms in a JSON file, ``{"patient": ..., "sample": ...}``.

        Raises UserError where it has none: they come in a file, since others see command lines.
        """
        found = read_json(path)
        for name in ("patient", "sample"):
            if not isinstance(found.get(name), str) or not found[name]:
                raise UserError(
                    f'{path}: has no pseudonym of the {name}. Write {{"patient": "...", "sample": "..."}}.'
                )
        return cls(site, found["patient"], found["sample"])


def encode(
    *,
    identity: SampleIdentity,
    sample: str,
    reference: StrPath,
    calls: Mapping[str, StrPath],
    bam: StrPath | None = None,
    frequencies: StrPath | None = None,
    pileups: bool = False,
    steps: Steps = silent,
) -> Iterator[pa.Table]:
    """The variant table (schema ``tables.VARIANTS``) of one sample, in parts; memory is bounded.

    With ``pileups`` its last column is ``tables.PILEUP``, all 0 without ``bam``.

    ``sample`` is the name in the files. ``calls`` maps callers to their normalised, indexed VCFs; ``bam``
    is sorted, indexed and duplicate-marked, and without it the features of the reads are missing;
    ``reference`` is a FASTA with its ``.fai``; ``frequencies`` a normalised, indexed sites VCF with
    INFO/AF. Rows come in the reference's contig order, then by position, ref, alt. Raises UserError where
    the inputs do not belong together.
    """
    sets = [CallSet(caller, path, sample) for caller, path in calls.items()]
    with ExitStack() as files:
        fasta = files.enter_context(pysam.FastaFile(os.fspath(reference)))
        alignments = files.enter_context(open_alignments(bam, reference, sample)) if bam is not None else None
        used = {contig: called.path for called in sets for contig in called.contigs()}
        for contig, path in used.items():
            if contig not in fasta.references:
                raise UserError(f"{path}: contig {contig} is not in {reference}. Use the same reference.")
        lengths = dict(zip(fasta.references, fasta.lengths, strict=True))
        contigs = {contig: length for contig, length in lengths.items() if contig in used}
        tick = files.enter_context(steps("encoding", sum(contigs.values()), "bp"))
        for contig, length in contigs.items():
            sequence, reached = fasta.fetch(contig).upper().encode(), 0
            for candidates in union(sets, contig):
                images = Images(candidates.alleles.starts, sequence) if pileups else None
                table = _rows(identity, candidates, sequence, alignments, frequencies, images)
                yield table if images is None else table.append_column(PILEUP, _packed(images))
                last = int(candidates.positions[-1])
                tick(last - reached)
                reached = last
            tick(length - reached)


def _rows(
    identity: SampleIdentity,
    candidates: Candidates,
    sequence: bytes,
    alignments: pysam.AlignmentFile | None,
    frequencies: StrPath | None,
    images: Images | None,
) -> pa.Table:
    contig, keys, alleles = candidates.contig, candidates.keys, candidates.alleles
    rows = keys.num_rows
    if alignments is None:
        reads = pileup.nothing(rows, depth=np.nan)
    elif contig not in alignments.references:
        reads = pileup.nothing(rows)
    else:
        reads = pileup.gather(alignments, contig, sequence, alleles, images)
    around = context.describe(sequence, alleles, candidates.before - 1, candidates.after - 1)
    annotations = candidates.annotations()
    values = features(candidates.quals(), annotations, reads, around)
    called = {caller: candidates.calls[caller] for caller in CALLERS}
    columns: dict[str, object] = {
        "site": _constant(identity.site, rows),
        "patient": _constant(identity.patient, rows),
        "sample": _constant(identity.sample, rows),
        "contig": _constant(contig, rows),
        **{name: keys[name] for name in ("position", "ref", "alt")},
        "callers": _callers(called),
        "variant_type": pa.array(strata.variant_types(keys["ref"], keys["alt"])),
        "context": pa.array(
            strata.contexts(*(around[name] for name in ("homopolymer", "repeat_unit", "repeat_length", "gc")))
        ),
        "zygosity": pa.array(
            np.select([annotations["dosage"] == 1, annotations["dosage"] > 0], _ZYGOSITIES, "unknown")
        ),
        "allele_frequency": _frequencies(frequencies, contig, keys),
    }
    for caller, table in called.items():
        columns[f"{caller}_qual"] = table["qual"].cast(pa.float32())
        columns[f"{caller}_qd"] = table["qd"].cast(pa.float32())
        columns[f"{caller}_pass"] = table["passed"]
    columns |= {name: values[:, column] for column, name in enumerate(FEATURES)}
    return pa.table(columns, schema=VARIANTS)


_ZYGOSITIES = [np.array("homozygous"), np.array("heterozygous")]


def _packed(images: Images) -> pa.Array:
    pixels = images.pixels()
    return pa.Array.from_buffers(PILEUP.type, len(pixels), [None, pa.py_buffer(pixels)])


def _constant(value: str, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, pa.string()), rows)


def _callers(called: Mapping[str, pa.Table]) -> pa.Array:
    """The callers of each row, in the order of CALLERS, with semicolons between."""
    names = np.array([";".join(c for bit, c in enumerate(CALLERS) if mask >> bit & 1) for mask in range(16)])
    masks = sum((table["position"].is_valid().to_numpy() << bit) for bit, table in enumerate(called.values()))
    return pa.array(names[masks])


def _frequencies(path: StrPath | None, contig: str, keys: pa.Table) -> pa.Array:
    """The population's allele frequencies, null without a resource or where it says none."""
    if path is None:
        return pa.nulls(keys.num_rows, pa.float32())
    found = resources.frequencies(path, contig, keys["position"].to_numpy(), keys["ref"], keys["alt"])
    return pa.array(found, pa.float32(), from_pandas=True)
