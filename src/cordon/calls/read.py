"""One caller's normalised VCF as columns: its alleles, what it says of them, and its own filter."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pysam
from pysam import bcftools

from cordon.arrays import Bools, Floats
from cordon.calls.callers import ANNOTATIONS, CALLERS
from cordon.errors import UserError
from cordon.files import StrPath
from cordon.genome.samtools import quiet, samtools

# Where a caller writes an annotation: FORMAT or INFO, and the field. bcftools query reads them.
INFO_FIELDS = {
    "qd": "QD",
    "fs": "FS",
    "sor": "SOR",
    "mq": "MQ",
    "mq_rank_sum": "MQRankSum",
    "read_pos_rank_sum": "ReadPosRankSum",
    "base_quality_rank_sum": "BaseQRankSum",
    "site_depth": "DP",
}
FORMAT_FIELDS = {"gq": "GQ", "sample_depth": "DP", "ref_reads": "AD{0}", "alt_reads": "AD{1}"}
TEXTS = ("ref", "alt", "genotype")
# GATK's recommended hard filters (GATK article 360035531112, "hard-filtering germline short variants"):
# an allele fails when a value lies beyond one of them; a missing value fails nothing.
SNV_BELOW = {"qd": 2.0, "qual": 30.0, "mq": 40.0, "mq_rank_sum": -12.5, "read_pos_rank_sum": -8.0}
SNV_ABOVE = {"sor": 3.0, "fs": 60.0}
INDEL_BELOW = {"qd": 2.0, "qual": 30.0, "read_pos_rank_sum": -20.0}
INDEL_ABOVE = {"fs": 200.0}
# `bcftools filter -e 'QUAL<20'`, the threshold of bcftools' own guide to variant calling.
BCFTOOLS_QUAL = 20.0
# Bytes of text parsed at once: some 40,000 alleles.
BLOCK = 1 << 22

# What `CallSet.read` gives, a row an allele: `qual` is phred and 0 where the caller gave none, `passed` the
# caller's own documented filter; the ANNOTATIONS are as of `features.call_features`, NaN where missing.
CALLS = pa.schema(
    [
        ("position", pa.int64()),
        ("ref", pa.string()),
        ("alt", pa.string()),
        ("qual", pa.float64()),
        ("passed", pa.bool_()),
        *((name, pa.float64()) for name in ANNOTATIONS),
    ]
)


def parse_calls(arguments: Iterable[str]) -> dict[str, Path]:
    """``caller=path`` arguments as a mapping. Raises UserError on an unknown or repeated caller."""
    paths: dict[str, Path] = {}
    for argument in arguments:
        caller, _, path = argument.partition("=")
        if caller not in CALLERS or not path:
            raise UserError(
                f"--calls {argument}: names no caller and its file. "
                f"Write caller=path with a caller of {', '.join(CALLERS)}."
            )
        if caller in paths:
            raise UserError(f"--calls {argument}: {caller} is there twice. Give one VCF a caller.")
        if not Path(path).exists():
            raise UserError(f"--calls {argument}: {path} does not exist. Check the path.")
        paths[caller] = Path(path)
    if not paths:
        raise UserError(
            "no calls are given, so there are no candidates. Give --calls caller=path at least once."
        )
    return paths


class CallSet:
    """An indexed, normalised, single-sample VCF of one caller, read contig by contig."""

    def __init__(self, caller: str, path: StrPath, sample: str) -> None:
        self.caller, self.path = caller, path
        try:
            with quiet():
                self._file = pysam.VariantFile(os.fspath(path))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: not a readable VCF ({error}). Make it with normalise_variants."
            ) from error
        samples = list(self._file.header.samples)
        if samples != [sample]:
            raise UserError(
                f"{path}: holds sample {', '.join(samples) or 'none'}, expected {sample} alone. "
                "Give the calls of this sample."
            )
        if self._file.index is None:
            raise UserError(f"{path}: has no index. Make it with normalise_variants.")
        self._fields = {
            "position": "%POS",
            "ref": "%REF",
            "alt": "%ALT",
            "qual": "%QUAL",
            "filter": "%FILTER",
            "genotype": "[%GT]",
            **{
                name: f"%INFO/{field}{{0}}"
                for name, field in INFO_FIELDS.items()
                if field in self._file.header.info
            },
            **{
                name: f"[%{field}]"
                for name, field in FORMAT_FIELDS.items()
                if field.partition("{")[0] in self._file.header.formats
            },
        }

    def contigs(self) -> list[str]:
        """The contigs that have records."""
        return [name for name in self._file.index if next(self._file.fetch(name), None) is not None]

    def read(self, contig: str) -> Iterator[pa.Table]:
        """The calls on a contig (schema CALLS) by position, some ten thousand at a time."""
        if contig not in self._file.index:
            return
        kinds = dict.fromkeys(self._fields, pa.float64())
        # FILTER may hold any bytes, and is only compared.
        kinds |= {"position": pa.int64(), "filter": pa.binary()} | dict.fromkeys(TEXTS, pa.string())
        with tempfile.TemporaryDirectory() as folder:
            text = Path(folder) / "calls.tsv"
            line = "\\t".join(self._fields.values())
            options = ("--regions", f"{{{contig}}}", "--format", f"{line}\\n", "--output", str(text))
            samtools(bcftools.query, *options, os.fspath(self.path), about=self.path)
            if not text.stat().st_size:
                return
            with pa.csv.open_csv(
                text,
                read_options=pa.csv.ReadOptions(
                    column_names=list(self._fields), block_size=BLOCK, use_threads=False
                ),
                parse_options=pa.csv.ParseOptions(delimiter="\t", quote_char=False),
                convert_options=pa.csv.ConvertOptions(
                    column_types=kinds, null_values=[".", "NaN", "nan"], strings_can_be_null=False
                ),
            ) as batches:
                for batch in batches:
                    yield self._calls(contig, pa.Table.from_batches([batch]))

    def _calls(self, contig: str, text: pa.Table) -> pa.Table:
        several = np.flatnonzero(pc.match_substring(text["alt"], ",").to_numpy())
        if several.size:
            alleles = text["alt"][several[0]].as_py().count(",") + 2
            raise UserError(
                f"{self.path}: {contig}:{text['position'][several[0]]} holds {alleles} alleles, not two. "
                "Pass it through normalise_variants first."
            )
        rows = text.num_rows
        said: dict[str, Floats] = {
            name: text[name].to_numpy() if name in self._fields else np.full(rows, np.nan)
            for name in ("qual", *INFO_FIELDS, *FORMAT_FIELDS)
        }
        unknown = said["qual"]
        said["qual"] = np.nan_to_num(unknown, nan=0.0)
        reads = said["ref_reads"] + said["alt_reads"]
        depth = _first_known(said["sample_depth"], reads, said["site_depth"])
        said |= {
            "depth": depth,
            "alt_fraction": said["alt_reads"] / np.where(reads > 0, reads, np.nan),
            "qd": _first_known(said["qd"], unknown / np.maximum(1.0, np.nan_to_num(depth))),
            "dosage": _dosages(text["genotype"]),
        }
        refs, alts = (pc.utf8_upper(text[name]) for name in ("ref", "alt"))
        snv = pc.equal(pc.binary_length(refs), pc.binary_length(alts)).to_numpy()
        passed = self._passes(text["filter"], said, snv)
        columns = [text["position"], refs, alts, said["qual"], passed, *(said[name] for name in ANNOTATIONS)]
        return pa.table(columns, schema=CALLS)

    def _passes(self, filters: pa.ChunkedArray, said: Mapping[str, Floats], snv: Bools) -> Bools:
        if self.caller in ("deepvariant", "other"):
            fine = [b"PASS"] if self.caller == "deepvariant" else [b"PASS", b"."]
            passed: Bools = pc.is_in(filters, pa.array(fine)).to_numpy()
            return passed
        if self.caller == "bcftools":
            return said["qual"] >= BCFTOOLS_QUAL
        with np.errstate(invalid="ignore"):
            failed = {
                kind: np.any(
                    [said[name] < least for name, least in below.items()]
                    + [said[name] > most for name, most in above.items()],
                    axis=0,
                )
                for kind, below, above in (
                    ("snv", SNV_BELOW, SNV_ABOVE),
                    ("indel", INDEL_BELOW, INDEL_ABOVE),
                )
            }
        fails: Bools = np.where(snv, failed["snv"], failed["indel"])
        return ~fails


def _first_known(*columns: Floats) -> Floats:
    """Element by element the first value that is not NaN."""
    known = columns[-1]
    for column in reversed(columns[:-1]):
        known = np.where(np.isnan(column), known, column)
    return known


def _dosages(genotypes: pa.ChunkedArray) -> Floats:
    """Share of each genotype's known alleles that are the alternative one, NaN without a genotype."""
    coded = genotypes.combine_chunks().dictionary_encode()
    shares = []
    for genotype in coded.dictionary.to_pylist():
        known = [allele for allele in genotype.replace("|", "/").split("/") if allele not in (".", "")]
        shares.append(known.count("1") / len(known) if known else np.nan)
    dosages: Floats = np.array(shares, dtype=np.float64)[coded.indices.to_numpy()]
    return dosages
