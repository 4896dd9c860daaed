"""Scored VCFs: every candidate with its calibrated log-odds, its callers, and a filter by sensitivity."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pysam

from cordon.calls.callers import PREFERENCE
from cordon.calls.headers import merged_header
from cordon.calls.read import parse_calls
from cordon.errors import InputProblems, Problem, UserError
from cordon.files import StrPath, written_beside
from cordon.genome.reference import read_fai
from cordon.genome.samtools import index, quiet
from cordon.scoring.calibrate import ONE_CALIBRATION, Calibration, Scorer, raw_scores
from cordon.steps import Steps, silent
from cordon.variants.table import PILEUP, for_model, inputs, read_batches, rows_of, schema_of

Lines = Mapping[tuple[int, str, str], list[str]]

LOW_SCORE = "CORDONLowScore"
# Records written between two tellings of progress.
TICK_EVERY = 10_000
CHROM, POS, ID, REF, ALT, QUAL, FILTER, INFO = range(8)


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


def score_table(
    model: Scorer, calibration: Calibration, table: pa.Table, *, truth_sensitivity: str
) -> pa.Table:
    """The table with ``cordon``, float64 log-odds (nats) that the allele is real, and ``cordon_pass``.

    Images are left out. An allele passes from the threshold of ``truth_sensitivity`` on; UserError where
    there is none.
    """
    values = calibration.apply(raw_scores(model, inputs(table, model.architecture)))
    passes = values >= calibration.threshold(truth_sensitivity)
    scored = table.select([name for name in table.schema.names if name != PILEUP.name])
    scored = scored.append_column(pa.field("cordon", pa.float64(), nullable=False), pa.array(values))
    return scored.append_column(pa.field("cordon_pass", pa.bool_(), nullable=False), pa.array(passes))


def score_file(
    model: Scorer, calibration: Calibration, path: StrPath, *, truth_sensitivity: str, steps: Steps = silent
) -> pa.Table:
    """`score_table` of the variant table at ``path``, labelled or not; never all its images are in memory."""
    with steps("scoring", rows_of(path), "candidates") as tick:
        batches = read_batches(path, for_model(schema_of(path), model.architecture), tick)
        return pa.concat_tables(
            score_table(model, calibration, batch, truth_sensitivity=truth_sensitivity) for batch in batches
        )


def write_scored(
    scored: pa.Table,
    *,
    model: Scorer,
    calibration: Calibration,
    calls: Mapping[str, StrPath],
    reference: StrPath,
    sample: str,
    truth_sensitivity: str,
    output: StrPath,
    steps: Steps = silent,
) -> int:
    """Write a bgzip VCF with tbi, one record a row of ``scored``; returns how many of them pass.

    ID, QUAL, INFO, FORMAT and genotype are those of the first of haplotypecaller, deepvariant and bcftools
    that called the allele. FILTER is PASS where the row passes, else CORDONLowScore. Raises UserError
    where the table and the calls do not belong together.
    """
    order = [caller for caller in PREFERENCE if caller in calls]
    contigs = read_fai(f"{os.fspath(reference)}.fai")
    own = _own_header(model, calibration, truth_sensitivity)
    passing = 0
    with written_beside(output) as temporary:
        progress = steps("writing", scored.num_rows, "records")
        with progress as tick, pysam.BGZFile(str(temporary), "w") as out:
            for line in merged_header([calls[caller] for caller in order], contigs, own, sample):
                out.write(f"{line}\n".encode())
            for number, fields in enumerate(_records(scored, {name: calls[name] for name in order}), start=1):
                passing += fields[FILTER] == "PASS"
                out.write(("\t".join(fields) + "\n").encode())
                if number % TICK_EVERY == 0:
                    tick(TICK_EVERY)
            tick(scored.num_rows % TICK_EVERY)
        index(temporary)
    return passing


def _records(scored: pa.Table, calls: Mapping[str, StrPath]) -> Iterator[list[str]]:
    """The VCF fields of every row, in the table's order, the callers' VCFs read a contig at a time."""
    names = ("contig", "position", "ref", "alt", "callers", "cordon", "cordon_pass")
    columns = [scored[name].to_pylist() for name in names]
    lines: dict[str, Lines] = {}
    current = None
    for contig, position, ref, alt, callers, value, passes in zip(*columns, strict=True):
        if contig != current:
            current = contig
            lines = {caller: _contig_lines(path, contig) for caller, path in calls.items()}
        called = [caller for caller in calls if (position, ref, alt) in lines[caller]]
        if sorted(called) != callers.split(";"):
            raise UserError(
                f"{contig}:{position} {ref}>{alt}: the variant table says that {callers} called it, the VCFs "
                f"say {', '.join(sorted(called)) or 'none'}. Give the VCFs that the table was made from."
            )
        base, *_ = records = [lines[caller][position, ref, alt] for caller in called]
        yield _scored(base, dict(zip(called, records, strict=True)), callers, value, passes)


def _scored(
    base: Sequence[str], records: Mapping[str, Sequence[str]], callers: str, value: float, passes: bool
) -> list[str]:
    filters = [
        f"{caller}:{fields[FILTER].replace(';', '&')}"
        for caller, fields in sorted(records.items())
        if fields[FILTER] != "."
    ]
    info = [] if base[INFO] == "." else [base[INFO]]
    info += [f"CORDON={value:.6g}", f"CORDON_CALLERS={callers.replace(';', ',')}"]
    info += [f"CORDON_FILTERS={','.join(filters)}"] if filters else []
    outcome = "PASS" if passes else LOW_SCORE
    return [*base[:FILTER], outcome, ";".join(info), *base[INFO + 1 :]]


def _contig_lines(path: StrPath, contig: str) -> Lines:
    """The fields of a normalised VCF's records on a contig, by position, ref and alt."""
    with quiet(), pysam.TabixFile(os.fspath(path)) as file:
        if contig not in file.contigs:
            return {}
        records = (line.split("\t") for line in file.fetch(contig))
        return {(int(fields[POS]), fields[REF].upper(), fields[ALT].upper()): fields for fields in records}


def _own_header(model: Scorer, calibration: Calibration, truth_sensitivity: str) -> list[str]:
    """The header lines that say what the scores are and what they cost."""
    facts: dict[str, object] = {"ModelHash": model.hash}
    stated = ("epsilon", "scope", "delta", "unit", "mechanism", "adjacency", "accountant", "rounds", "sites")
    facts |= {name.capitalize(): model.privacy[name] for name in stated if name in model.privacy}
    facts["SitesPerPatient"] = model.privacy.get("sites_per_patient", 1)
    facts |= {
        "CalibrationMode": calibration.mode,
        "Calibration": calibration.origin,
        "CalibrationSlope": f"{calibration.slope:.6g}",
        "CalibrationIntercept": f"{calibration.intercept:.6g}",
    }
    costs = ("epsilon", "delta", "unit", "mechanism", "adjacency", "accountant")
    facts |= {
        f"Calibration{name.capitalize()}": calibration.cost[name]
        for name in costs if name in calibration.cost
    }  # fmt: skip
    if calibration.cost:
        facts["CalibrationScope"] = ONE_CALIBRATION
    if "sites_per_patient" in calibration.cost:
        facts["CalibrationSitesPerPatient"] = calibration.cost["sites_per_patient"]
    facts["Threshold"] = f"{calibration.threshold(truth_sensitivity):.6g}"
    if calibration.fitted:
        facts["TruthSensitivity"] = truth_sensitivity
    if calibration.margin is not None:
        facts["TruthSensitivityMargin"] = f"{calibration.margin:.2g}"
    text = ",".join(f"{name}={_quoted(value)}" for name, value in facts.items())
    filtered = f"CORDON below {calibration.rule(truth_sensitivity)} (calibration: {calibration.origin})"
    odds = "Calibrated natural-log odds" if calibration.calibrated else "Natural-log odds, not calibrated,"
    return [
        f"##CORDON=<ID=Model,{text}>",
        f"##FILTER=<ID={LOW_SCORE},Description={_quoted(filtered)}>",
        f'##INFO=<ID=CORDON,Number=1,Type=Float,Description="{odds} that the allele is real, by the '
        'federated model">',
        '##INFO=<ID=CORDON_CALLERS,Number=.,Type=String,Description="Callers that called the allele">',
        "##INFO=<ID=CORDON_FILTERS,Number=.,Type=String,Description=\"The callers' own FILTER values, as "
        'caller:values">',
    ]


def _quoted(value: object) -> str:
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return text if isinstance(value, int | float) else f'"{text}"'
