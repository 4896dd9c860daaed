"""Scored VCFs: every candidate with its calibrated log-odds, its callers, and a filter by sensitivity."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pysam

from cordon import foreign
from cordon.calls.callers import PREFERENCE
from cordon.calls.headers import merged_header
from cordon.calls.own import (
    CALLED_BY,
    FILTERED_BY,
    LOW_SCORE,
    REPEAT,
    REPEATS,
    REVIEW,
    SCORE,
    filters_told,
    without_scores,
)
from cordon.calls.read import parse_calls
from cordon.errors import InputProblems, Problem, UserError
from cordon.files import StrPath, written_beside
from cordon.genome.reference import read_fai
from cordon.genome.samtools import index, quiet
from cordon.scoring.calibration import ONE_CALIBRATION, Calibration, Scorer
from cordon.steps import Steps, Tick, silent
from cordon.variants.spellings import Repeat, repeats_of, whole_haplotypes
from cordon.variants.strata import KINDS, guarded, indels
from cordon.variants.table import PILEUP, for_model, read_batches, rows_of, schema_of, write_batches

# The fields of records at one position, by ref and alt.
Alleles = dict[tuple[str, str], list[str]]

# What scoring appends to a table.
SCORED = (
    pa.field("cordon", pa.float64(), nullable=False),
    pa.field("cordon_pass", pa.bool_(), nullable=False),
    pa.field("cordon_review", pa.bool_(), nullable=False),
    pa.field("cordon_repeats", pa.string()),  # the alleles whose haplotype the row writes once more
)
CHROM, POS, ID, REF, ALT, QUAL, FILTER, INFO = range(8)
# Every byte is a character of it: what callers wrote is written as it was, whatever its encoding.
BYTES = "latin-1"


@dataclass(frozen=True)
class Sample:
    """What is scored of a sample: its variant table, and the normalised VCF of each caller."""

    sample: str
    variants: Path
    calls: Mapping[str, Path]


def read_samples(path: Path) -> list[Sample]:
    """The samples of a CSV with the columns sample, variants and calls; InputProblems names every bad row."""
    samples: list[Sample] = []
    problems: list[Problem] = []
    reader = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines())
    for row in reader:
        name, variants, calls = (row.get(column) or "" for column in ("sample", "variants", "calls"))
        where = f"{path.name}, row {reader.line_num}"
        try:
            if not name or name in {other.sample for other in samples}:
                raise UserError(f"{name!r} is no sample of its own. Give each sample one row, and its name.")
            if not Path(variants).is_file():
                raise UserError(f"{variants or 'no variants'}: no variant table. Check the path.")
            samples.append(Sample(name, Path(variants), parse_calls(filter(None, calls.split(";")))))
        except UserError as error:
            what, _, remedy = str(error).partition(". ")
            problems.append(Problem(where, f"{what}.", remedy))
    if not samples and not problems:
        problems.append(
            Problem(path.name, "no sample.", "Give sample, variants and calls, one row a sample.")
        )
    if problems:
        raise InputProblems(problems)
    return samples


@dataclass(frozen=True)
class Scoring:
    """What alleles are scored and filtered by: a model, a calibration, and the sensitivity asked for.

    Strata of `cordon.variants.strata.GUARDED` that are ``protected`` keep that sensitivity for themselves.
    """

    model: Scorer
    calibration: Calibration
    truth_sensitivity: str
    protected: tuple[str, ...] = ()

    def table(self, table: pa.Table, repeats: Sequence[Repeat] = ()) -> pa.Table:
        """The table with ``cordon``, float64 log-odds (nats) that the allele is real, and what became of it:
        ``cordon_pass`` and, of the others, ``cordon_review`` (`Calibration.decide`).

        Of rows that write a haplotype twice (``repeats``), those that stand have the better score of both
        spellings; the others are neither passed nor for review, and ``cordon_repeats`` names what stands.
        Images are left out. UserError where the calibration has no threshold for the sensitivity.
        """
        raw, of_indels = self.calibration.raw(self.model, table), indels(table)
        values = self.calibration.apply(raw, of_indels)
        names: list[str | None] = [None] * table.num_rows
        for stands, again in repeats:
            values[list(stands)] = np.maximum(values[list(stands)], values[list(again)].min())
            kept = table.select(["contig", "position", "ref", "alt"]).take(list(stands)).to_pylist()
            named = ",".join("{contig}:{position}:{ref}>{alt}".format(**row) for row in kept)
            for row in again:
                names[row] = named
        passes, review = self.calibration.decide(
            values, of_indels, guarded(table), self.truth_sensitivity, self.protected
        )
        once = np.array([name is None for name in names], dtype=np.bool_)
        scored = table.select([name for name in table.schema.names if name != PILEUP.name])
        for field, column in zip(SCORED, (values, passes & once, review & once, names), strict=True):
            scored = scored.append_column(field, pa.array(column, field.type))
        return scored

    def batches(
        self, path: StrPath, reference: StrPath | None = None, tick: Tick | None = None
    ) -> Iterator[pa.Table]:
        """The variant table at ``path``, labelled or not, scored about a row group at a time.

        Without a ``reference`` (FASTA with its ``.fai``) haplotypes are not compared: no row repeats others.
        """
        with ExitStack() as files:
            fasta = files.enter_context(pysam.FastaFile(os.fspath(reference))) if reference else None
            batches = read_batches(path, for_model(schema_of(path), self.model.architecture), tick)
            for batch in batches if fasta is None else whole_haplotypes(batches):
                yield self.table(batch, repeats_of(batch, fasta) if fasta is not None else ())


def score_sample(
    one: Sample, scoring: Scoring, *, reference: StrPath, outdir: Path, steps: Steps = silent
) -> tuple[int, int]:
    """Write SAMPLE.scored.vcf.gz with tbi, one record a row, and the rows as SAMPLE.scored.parquet.

    A row group at a time, and of each VCF the records of one position: memory does not grow with the genome.
    ID, QUAL, INFO, FORMAT and genotype are those of the first of haplotypecaller, deepvariant and bcftools
    that called the allele. FILTER is PASS where the row passes, CORDONReview where it is for review,
    CORDONRepeat where other rows stand for it, else CORDONLowScore. UserError where the table and the calls
    do not belong together.

    Returns: how many rows pass, and how many there are.
    """
    vcf, table = (outdir / f"{one.sample}.scored.{kind}" for kind in ("vcf.gz", "parquet"))
    order = [caller for caller in PREFERENCE if caller in one.calls]
    scoring = replace(scoring, calibration=scoring.calibration.of_sample(order))
    contigs = read_fai(f"{os.fspath(reference)}.fai")
    header = merged_header([one.calls[caller] for caller in order], contigs, _own_header(scoring), one.sample)
    passing = 0
    with ExitStack() as opened:
        tick = opened.enter_context(steps("scoring", rows_of(one.variants), "candidates"))
        temporary = opened.enter_context(written_beside(vcf))
        calls = {name: opened.enter_context(closing(Calls(one.calls[name]))) for name in order}
        with pysam.BGZFile(str(temporary), "w") as out:
            out.write("".join(f"{line}\n" for line in header).encode(errors="surrogateescape"))

            def written(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
                nonlocal passing
                for batch in batches:
                    for fields in _records(batch, calls):
                        passing += fields[FILTER] == "PASS"
                        out.write(("\t".join(fields) + "\n").encode(BYTES))
                    yield batch

            batches = scoring.batches(one.variants, reference, tick)
            first = next(batches)
            rows = write_batches(table, first.schema, written(chain([first], batches)))
        index(temporary)
    return passing, rows


class Calls:
    """The records of a caller's normalised VCF, which is read once, in the order of the table's rows."""

    def __init__(self, path: StrPath) -> None:
        with quiet():
            self._file = pysam.TabixFile(os.fspath(path), encoding=BYTES)
        self._contig = ""
        self._lines: Iterator[str] = iter(())
        self._next: tuple[int, str] | None = None
        self._position, self._held = 0, Alleles()

    def close(self) -> None:
        self._file.close()

    def at(self, contig: str, position: int) -> Alleles:
        """The fields of the records there, by ref and alt; UserError where later ones were read already."""
        if contig != self._contig:
            self._contig, self._position, self._held = contig, 0, Alleles()
            self._lines = self._file.fetch(contig) if contig in self._file.contigs else iter(())
            self._advance()
        if position < self._position:
            raise UserError(
                f"{contig}:{position} comes after {contig}:{self._position} in the variant table. Give the "
                "table as encode_variants or label_variants wrote it: sorted by position."
            )
        if position > self._position:
            self._position, self._held = position, Alleles()
            while self._next is not None and self._next[0] <= position:
                if self._next[0] == position:
                    fields = self._next[1].split("\t")
                    self._held[fields[REF].upper(), fields[ALT].upper()] = fields
                self._advance()
        return self._held

    def _advance(self) -> None:
        line = next(self._lines, None)
        self._next = None if line is None else (int(line.split("\t", 2)[POS]), line)


def _records(scored: pa.Table, calls: Mapping[str, Calls]) -> Iterator[list[str]]:
    """The VCF fields of every row, in the table's order."""
    names = ("contig", "position", "ref", "alt", "callers", *(field.name for field in SCORED))
    columns = [scored[name].to_pylist() for name in names]
    for contig, position, ref, alt, callers, value, passes, review, repeats in zip(*columns, strict=True):
        found = {caller: held.at(contig, position).get((ref, alt)) for caller, held in calls.items()}
        records = {caller: fields for caller, fields in found.items() if fields is not None}
        if sorted(records) != callers.split(";"):
            raise UserError(
                f"{contig}:{position} {ref}>{alt}: the variant table says that {callers} called it, the VCFs "
                f"say {', '.join(sorted(records)) or 'none'}. Give the VCFs that the table was made from."
            )
        outcome = "PASS" if passes else REVIEW if review else REPEAT if repeats else LOW_SCORE
        fields = _scored(next(iter(records.values())), records, callers, value, outcome)
        fields[INFO] += f";{REPEATS}={repeats}" if repeats else ""
        yield fields


def _scored(
    base: Sequence[str], records: Mapping[str, Sequence[str]], callers: str, value: float, outcome: str
) -> list[str]:
    own = {caller: without_scores(*fields[FILTER : INFO + 1]) for caller, fields in records.items()}
    filters = {caller: value for caller, (value, _) in own.items() if value != "."}
    kept = without_scores(*base[FILTER : INFO + 1])[1]
    info = [] if kept == "." else [kept]
    info += [f"{SCORE}={value:.6g}", f"{CALLED_BY}={callers.replace(';', ',')}"]
    info += [f"{FILTERED_BY}={filters_told(filters)}"] if filters else []
    return [*base[:FILTER], outcome, ";".join(info), *base[INFO + 1 :]]


def _own_header(scoring: Scoring) -> list[str]:
    """The header lines that say what the scores are and what they cost."""
    model, calibration, truth_sensitivity = scoring.model, scoring.calibration, scoring.truth_sensitivity
    facts: dict[str, object] = {"ModelHash": model.hash}
    stated = ("epsilon", "scope", "delta", "unit", "mechanism", "adjacency", "accountant", "rounds", "sites")
    facts |= {name.capitalize(): model.privacy[name] for name in stated if name in model.privacy}
    facts["SitesPerPatient"] = model.privacy.get("sites_per_patient", 1)
    facts |= {
        "CalibrationMode": calibration.mode,
        "Calibration": calibration.origin,
        **{f"Calibration{kind.capitalize()}": calibration.curves[kind] for kind in KINDS},
    }
    if calibration.caller_score:
        facts["InsteadOfModel"] = calibration.caller_score
    costs = ("epsilon", "delta", "unit", "mechanism", "adjacency", "accountant")
    facts |= {
        f"Calibration{name.capitalize()}": calibration.cost[name]
        for name in costs if name in calibration.cost
    }  # fmt: skip
    if calibration.cost:
        facts["CalibrationScope"] = ONE_CALIBRATION
    if "sites_per_patient" in calibration.cost:
        facts["CalibrationSitesPerPatient"] = calibration.cost["sites_per_patient"]
    for kind in KINDS:
        facts[f"Threshold{kind.capitalize()}"] = f"{calibration.threshold(truth_sensitivity, kind):.6g}"
    if calibration.fitted:
        facts["TruthSensitivity"] = truth_sensitivity
    if calibration.margin is not None:
        facts["TruthSensitivityMargin"] = f"{calibration.margin:.2g}"
    text = ",".join(f"{name}={_quoted(value)}" for name, value in facts.items())
    filtered = f"CORDON below {calibration.rule(truth_sensitivity)} (calibration: {calibration.origin})"
    below = ", ".join(
        f"{name} from {calibration.threshold(truth_sensitivity, name):.6g}" for name in calibration.strata
    )
    review = (
        f"CORDON too low for PASS, and yet where {truth_sensitivity} of the real alleles of a stratum lie "
    )
    review += f"that the allele is in: {below or 'none has a threshold here'}"
    if scoring.protected:
        filtered += f"; alleles pass by these strata, too: {', '.join(scoring.protected)}"
    odds = "Calibrated natural-log odds" if calibration.calibrated else "Natural-log odds, not calibrated,"
    by = "by the federated model"
    if instead := calibration.stands_for_the_model:
        by = f"by {calibration.caller_score} in place of the federated model: {instead}"
    return [
        f"##CORDON=<ID=Model,{text}>",
        f"##FILTER=<ID={LOW_SCORE},Description={_quoted(filtered)}>",
        f"##FILTER=<ID={REVIEW},Description={_quoted(review)}>",
        f'##FILTER=<ID={REPEAT},Description="Writes a haplotype once more that other records stand for; the '
        f'better score of both spellings is theirs ({REPEATS})">',
        f'##INFO=<ID=CORDON,Number=1,Type=Float,Description="{odds} that the allele is real, {by}">',
        '##INFO=<ID=CORDON_CALLERS,Number=.,Type=String,Description="Callers that called the allele">',
        f'##INFO=<ID={REPEATS},Number=.,Type=String,Description="The records that stand for this haplotype, '
        'as contig:position:ref>alt">',
        "##INFO=<ID=CORDON_FILTERS,Number=.,Type=String,Description=\"The callers' own FILTER values, as "
        'caller:values">',
    ]


def _quoted(value: object) -> str:
    return str(value) if isinstance(value, int | float) else f'"{foreign.vcf(value)}"'
