"""The union of the callers' candidates for one sample, as a variant table with features."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pysam
from numpy.typing import NDArray

from cordon import context, pileup
from cordon.calls import PREFERENCE, Call, CallSet, Key
from cordon.context import Allele
from cordon.errors import UserError
from cordon.features import CALLERS, FEATURES, features
from cordon.reads import open_alignments
from cordon.tables import VARIANTS

StrPath = str | os.PathLike[str]

# What the features need of HaplotypeCaller beside its QUAL.
_OF_HAPLOTYPECALLER = ("qd", "gq", "fs", "sor", "mq", "mq_rank_sum", "read_pos_rank_sum")


def encode(
    *, site: str, patient: str, sample: str, bam: StrPath, reference: StrPath, calls: Mapping[str, StrPath]
) -> pa.Table:
    """The variant table (schema ``tables.VARIANTS``) of one sample.

    ``calls`` maps callers to their normalised, indexed VCFs; ``bam`` is sorted, indexed and
    duplicate-marked; ``reference`` is a FASTA with its ``.fai``. Rows come in the reference's contig
    order, then by position, ref, alt. Raises UserError where the inputs do not belong together.
    """
    sets = [CallSet(caller, path, sample) for caller, path in calls.items()]
    with (
        pysam.FastaFile(os.fspath(reference)) as fasta,
        open_alignments(bam, reference, sample) as alignments,
    ):
        used = {contig: called.path for called in sets for contig in called.contigs()}
        for contig, path in used.items():
            if contig not in fasta.references:
                raise UserError(f"{path}: contig {contig} is not in {reference}. Use the same reference.")
        parts = [
            _encode_contig(fasta, alignments, contig, {called.caller: called.read(contig) for called in sets})
            for contig in fasta.references
            if contig in used
        ]
    identity = {"site": site, "patient": patient, "sample": sample}
    return pa.concat_tables([VARIANTS.empty_table(), *(_with_identity(part, identity) for part in parts)])


def _encode_contig(
    fasta: pysam.FastaFile,
    alignments: pysam.AlignmentFile,
    contig: str,
    calls: Mapping[str, Mapping[Key, Call]],
) -> dict[str, object]:
    """All columns of one contig's rows but the identity."""
    keys = sorted(set().union(*calls.values()))
    sequence = fasta.fetch(contig).upper()
    alleles = [Allele(position - 1, ref, alt) for position, ref, alt in keys]
    by_caller = {caller: [calls.get(caller, {}).get(key) for key in keys] for caller in CALLERS}
    reads = (
        pileup.gather(alignments, contig, sequence, alleles)
        if contig in alignments.references
        else pileup.nothing(len(alleles))
    )
    values = features(_call_values(by_caller), reads, context.describe(sequence, alleles))
    columns: dict[str, object] = {
        "contig": [contig] * len(keys),
        "position": [position for position, _, _ in keys],
        "ref": [ref for _, ref, _ in keys],
        "alt": [alt for _, _, alt in keys],
        "callers": [
            ";".join(caller for caller in CALLERS if by_caller[caller][row]) for row in range(len(keys))
        ],
    }
    for caller, called in by_caller.items():
        columns[f"{caller}_qual"] = [call.values["qual"] if call else None for call in called]
        columns[f"{caller}_qd"] = [call.values["qd"] if call else None for call in called]
        columns[f"{caller}_pass"] = [call.passed if call else None for call in called]
    return columns | {name: values[:, column] for column, name in enumerate(FEATURES)}


def _call_values(by_caller: Mapping[str, Sequence[Call | None]]) -> dict[str, NDArray[np.float64]]:
    """The arrays that ``features.call_features`` takes."""

    def column(caller: str, name: str) -> NDArray[np.float64]:
        return np.array([call.values[name] if call else np.nan for call in by_caller[caller]], dtype=float)

    values = {f"{caller}_qual": column(caller, "qual") for caller in CALLERS}
    values |= {f"haplotypecaller_{name}": column("haplotypecaller", name) for name in _OF_HAPLOTYPECALLER}
    dosage = np.full(len(by_caller["haplotypecaller"]), np.nan)
    for caller in reversed(PREFERENCE):
        called = column(caller, "dosage")
        dosage = np.where(np.isnan(called), dosage, called)
    return values | {"dosage": dosage}


def _with_identity(columns: dict[str, object], identity: Mapping[str, str]) -> pa.Table:
    rows = len(columns["position"])  # type: ignore[arg-type]
    filled = {name: [value] * rows for name, value in identity.items()}
    return pa.table({**filled, **columns}, schema=VARIANTS)
