"""One caller's normalised VCF: its alleles, what the caller says of them, and the caller's own filter."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pysam

from cordon.errors import UserError
from cordon.features import CALLERS
from cordon.reads import quiet

# The caller whose record and genotype stand for an allele, where several called it.
PREFERENCE = ("haplotypecaller", "deepvariant", "bcftools")

# INFO fields of HaplotypeCaller and what the features call them.
ANNOTATIONS = {
    "QD": "qd",
    "FS": "fs",
    "SOR": "sor",
    "MQ": "mq",
    "MQRankSum": "mq_rank_sum",
    "ReadPosRankSum": "read_pos_rank_sum",
}
# GATK's recommended hard filters (GATK article 360035531112, "hard-filtering germline short variants"):
# an allele fails when a value lies beyond one of them; a missing value fails nothing.
SNV_BELOW = {"qd": 2.0, "qual": 30.0, "mq": 40.0, "mq_rank_sum": -12.5, "read_pos_rank_sum": -8.0}
SNV_ABOVE = {"sor": 3.0, "fs": 60.0}
INDEL_BELOW = {"qd": 2.0, "qual": 30.0, "read_pos_rank_sum": -20.0}
INDEL_ABOVE = {"fs": 200.0}
# `bcftools filter -e 'QUAL<20'`, the threshold of bcftools' own guide to variant calling.
BCFTOOLS_QUAL = 20.0

Key = tuple[int, str, str]  # 1-based position, ref, alt


@dataclass(frozen=True, slots=True)
class Call:
    """What one caller says of one allele.

    ``values`` has ``qual`` (phred, 0 where the caller gave none), ``qd``, ``gq``, ``dosage`` (share of
    the genotype's alleles that are this one) and the ANNOTATIONS; NaN where missing. ``passed`` is the
    caller's own documented filter.
    """

    values: Mapping[str, float]
    passed: bool


def parse_calls(arguments: Iterable[str]) -> dict[str, Path]:
    """``caller=path`` arguments as a mapping. Raises UserError on an unknown or repeated caller."""
    paths: dict[str, Path] = {}
    for argument in arguments:
        caller, _, path = argument.partition("=")
        if caller not in CALLERS or not path:
            raise UserError(f"--calls {argument}: write caller=path with a caller of {', '.join(CALLERS)}.")
        if caller in paths:
            raise UserError(f"--calls {argument}: {caller} is there twice. Give one VCF a caller.")
        if not Path(path).exists():
            raise UserError(f"--calls {argument}: {path} does not exist.")
        paths[caller] = Path(path)
    if not paths:
        raise UserError("No calls: give --calls caller=path at least once.")
    return paths


class CallSet:
    """An indexed, normalised, single-sample VCF of one caller, read contig by contig."""

    def __init__(self, caller: str, path: str | os.PathLike[str], sample: str) -> None:
        self.caller, self.path = caller, path
        try:
            with quiet():
                self._file = pysam.VariantFile(os.fspath(path))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not a readable VCF ({error}).") from error
        self._annotated = set(self._file.header.info)
        samples = list(self._file.header.samples)
        if samples != [sample]:
            raise UserError(
                f"{path}: holds sample {', '.join(samples) or 'none'}, expected {sample} alone. "
                "Give the calls of this sample."
            )
        if self._file.index is None:
            raise UserError(f"{path}: has no index. Make it with normalise_variants.")

    def contigs(self) -> list[str]:
        """The contigs that have records."""
        return [name for name in self._file.index if next(self._fetch(name), None) is not None]

    def read(self, contig: str) -> dict[Key, Call]:
        """Every call on a contig by allele."""
        calls: dict[Key, Call] = {}
        for record in self._fetch(contig):
            if len(record.alleles) != 2:
                raise UserError(
                    f"{self.path}: {contig}:{record.pos} holds {len(record.alleles)} alleles, not two. "
                    "Pass it through normalise_variants first."
                )
            calls[record.pos, record.ref.upper(), record.alts[0].upper()] = self._call(record)
        return calls

    def _fetch(self, contig: str) -> Iterator[pysam.VariantRecord]:
        if contig not in self._file.index:
            return iter(())
        records: Iterator[pysam.VariantRecord] = self._file.fetch(contig)
        return records

    def _call(self, record: pysam.VariantRecord) -> Call:
        sample = record.samples[0]
        values = {"qual": float(record.qual or 0.0), "gq": _number(sample.get("GQ"))}
        for field, name in ANNOTATIONS.items():
            values[name] = _number(record.info.get(field)) if field in self._annotated else np.nan
        if np.isnan(values["qd"]):
            values["qd"] = values["qual"] / max(1.0, _depth(record, sample))
        genotype = [allele for allele in sample.get("GT") or () if allele is not None]
        values["dosage"] = genotype.count(1) / len(genotype) if genotype else np.nan
        return Call(values, self._passes(record, values))

    def _passes(self, record: pysam.VariantRecord, values: Mapping[str, float]) -> bool:
        if self.caller == "deepvariant":
            return list(record.filter) == ["PASS"]
        if self.caller == "bcftools":
            return values["qual"] >= BCFTOOLS_QUAL
        snv = len(record.ref) == len(record.alts[0])
        below, above = (SNV_BELOW, SNV_ABOVE) if snv else (INDEL_BELOW, INDEL_ABOVE)
        return not (
            any(values[name] < least for name, least in below.items())
            or any(values[name] > most for name, most in above.items())
        )


def _number(value: object) -> float:
    """A field's (first) number as a float, NaN where it is missing."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    return float(value) if isinstance(value, int | float) else np.nan


def _depth(record: pysam.VariantRecord, sample: pysam.VariantRecordSample) -> float:
    """Read depth of the call: FORMAT/DP, the sum of FORMAT/AD, or INFO/DP; 0 when there is none."""
    depth = _number(sample.get("DP"))
    if np.isnan(depth):
        counts = [count for count in sample.get("AD") or () if count is not None]
        depth = (
            float(sum(counts)) if counts else _number(record.info.get("DP") if "DP" in record.info else None)
        )
    return 0.0 if np.isnan(depth) else depth
