"""How well each score and each filter separates real alleles from false ones, on held-out samples.

Accuracy here is computed from labels without noise: it is not differentially private and stays with
whoever may see the held-out samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cordon.arrays import Bools, Floats
from cordon.errors import InputProblems, Problem, UserError
from cordon.evaluation.accuracy import curves, keep, rank, reliability
from cordon.evaluation.filters import filters
from cordon.files import written_beside
from cordon.variants.caller_scores import caller_scores, floats
from cordon.variants.labels import KNOWN_SITES, SOURCE_KEY
from cordon.variants.strata import strata
from cordon.variants.table import LABELLED, TRUTH_ALLELES_KEY, read_table, without_features

# The column of a scored table that names the rows that stand for this one (`cordon.scoring.score`).
REPEATS = "cordon_repeats"


@dataclass(frozen=True)
class HeldOut:
    """Labelled alleles of the held-out samples, one element of each array per allele.

    ``real`` [n] says which alleles are in the truth; ``scores`` maps a score's name to [n] values, higher
    meaning more likely real; ``filters`` maps a filter's name to [n] kept or not. ``strata`` are kind, name
    and rows [n] as of ``strata.strata``; ``sites`` maps a site to its rows. ``truth`` maps a site to its
    truth alleles inside the confident regions, found or not; None where the tables do not say.
    ``known_sites`` says that some labels come of public resources, not of a truth set.
    """

    samples: tuple[str, ...]
    sites: dict[str, Bools]
    strata: tuple[tuple[str, str, Bools], ...]
    real: Bools
    scores: dict[str, Floats]
    filters: dict[str, Bools]
    truth: dict[str, int] | None
    known_sites: bool = False


def read_held_out(paths: Sequence[Path]) -> HeldOut:
    """Read labelled tables with their scores (Parquet) and keep the rows that have a label.

    A table is one of ``tables.LABELLED`` with ``cordon`` (float64) and optionally ``cordon_pass`` and
    ``cordon_review`` (bool), and ``cordon_repeats`` (string): where that is not null, another row stands for
    the allele, which counts once.
    Raises UserError for a file that is no such table and when no labelled allele is left, InputProblems
    for tables that disagree with each other or hold alleles without a score.
    """
    tables = [_read(path) for path in paths]
    problems = list(_problems(paths, tables))
    if problems:
        raise InputProblems(problems)
    table = pa.concat_tables([item.replace_schema_metadata(None) for item in tables]) if tables else None
    table = table.filter(table["label"].is_valid()) if table else None
    if table is not None and REPEATS in table.schema.names:
        table = table.filter(table[REPEATS].is_null())
    if table is None or table.num_rows == 0:
        names = ", ".join(str(path) for path in paths) or "no table given"
        raise UserError(
            f"{names}: no labelled allele to evaluate. Give held-out samples (role test) whose truth VCF and "
            "confident BED cover some of their candidates."
        )
    return HeldOut(
        samples=tuple(sorted({name for item in tables for name in _sample_names(item)})),
        sites={name: pc.equal(table["site"], name).to_numpy() for name in sorted(_distinct(table, "site"))},
        strata=tuple(strata(table)),
        real=table["label"].to_numpy() == 1,
        scores=_scores(table),
        filters=filters(table),
        truth=_truth(tables),
        known_sites=any((item.schema.metadata or {}).get(SOURCE_KEY) == KNOWN_SITES for item in tables),
    )


def evaluate(data: HeldOut) -> dict[str, Any]:
    """Return the content of evaluation.json: every score and filter, over all alleles and by stratum.

    ``recall`` is over the real alleles that some caller proposed; ``sensitivity`` is over all truth
    alleles inside the confident regions (null where their number is not known, as in every stratum but a
    site). ``truth_source`` is ``truth set``; ``candidates`` where that number is not known and the labelled
    alleles stand for it; ``known sites`` where labels come of public resources. ``calibration`` compares
    Cordon's log-odds, as probabilities, with the labels.
    """
    found = int(data.real.sum())
    truth = sum(data.truth.values()) if data.truth is not None else found
    if truth < found:
        raise UserError(
            f"the tables say {truth} truth alleles but label {found} alleles as real. Label the samples "
            "again: cordon.truth_alleles must count every truth allele inside the confident regions."
        )
    everything = np.ones(data.real.size, dtype=np.bool_)
    whole = _measure(data, everything, truth)
    for entry in whole["scores"]:
        entry.update(curves(data.real, data.scores[entry["name"]]))
    return {
        "samples": list(data.samples),
        "truth_source": _truth_source(data),
        **whole,
        "calibration": reliability(data.real, data.scores["cordon"]),
        "strata": [
            {"kind": kind, "name": name, **_measure(data, rows, known)}
            for kind, name, rows, known in _strata(data)
            if rows.any()
        ],
    }


def write_evaluation(result: dict[str, Any], path: Path) -> None:
    """Write ``result`` as JSON, moved into place once complete."""
    with written_beside(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _measure(data: HeldOut, rows: Bools, truth: int | None) -> dict[str, Any]:
    real = data.real[rows]
    return {
        "alleles": {"true": int(real.sum()), "false": int((~real).sum()), "truth": truth},
        "scores": [{"name": name, **rank(real, score[rows])} for name, score in data.scores.items()],
        "filters": [{"name": name, **keep(real, kept[rows], truth)} for name, kept in data.filters.items()],
    }


def _strata(data: HeldOut) -> Iterator[tuple[str, str, Bools, int | None]]:
    """(kind, name, rows, truth alleles if known) of each stratum."""
    for kind, name, rows in data.strata:
        yield kind, name, rows, None
    for site, rows in data.sites.items():
        yield "site", site, rows, data.truth.get(site) if data.truth is not None else None


def _truth_source(data: HeldOut) -> str:
    if data.known_sites:
        return KNOWN_SITES.decode()
    return "truth set" if data.truth is not None else "candidates"


def _scores(table: pa.Table) -> dict[str, Floats]:
    """Cordon's score, then each caller's QUAL and QD."""
    return {"cordon": floats(table, "cordon")} | caller_scores(table)


def _read(path: Path) -> pa.Table:
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error}). Score the sample again.") from error
    schema = without_features(LABELLED).append(LABELLED.field("f_alt_fraction"))
    schema = schema.append(pa.field("cordon", pa.float64()))
    for name in ("cordon_pass", "cordon_review"):
        if name in names:
            schema = schema.append(pa.field(name, pa.bool_()))
    if REPEATS in names:
        schema = schema.append(pa.field(REPEATS, pa.string()))
    return read_table(path, schema)


def _problems(paths: Sequence[Path], tables: Sequence[pa.Table]) -> Iterator[Problem]:
    """Alleles without a score, samples given twice, tables that were not scored by the same models."""
    seen: dict[str, Path] = {}
    for path, table in zip(paths, tables, strict=True):
        for name in [name for name in table.schema.names if name not in (*LABELLED.names, REPEATS)]:
            bad = _unscored(table, name)
            if bad.size:
                what = f"column {name} has no finite value in {bad.size} labelled rows."
                yield Problem(f"{path}, row {bad[0] + 1}", what, "Score the sample again.")
        if table.schema.names != tables[0].schema.names:
            what = f"its score columns differ from those of {paths[0]}."
            yield Problem(str(path), what, "Score all held-out samples with the same models.")
        for sample in _sample_names(table):
            if sample in seen:
                what = f"sample {sample} is also in {seen[sample]}."
                yield Problem(str(path), what, "Give each sample once.")
            seen[sample] = path


def _unscored(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    """Row indices whose label is known but whose score or verdict ``name`` is not."""
    column = table[name]
    missing = ~column.is_valid().to_numpy()
    if pa.types.is_floating(column.type):
        missing = ~np.isfinite(floats(table, name))
    return np.flatnonzero(missing & table["label"].is_valid().to_numpy())


def _sample_names(table: pa.Table) -> set[str]:
    return set(pc.unique(pc.binary_join_element_wise(table["site"], table["sample"], "/")).to_pylist())


def _distinct(table: pa.Table, name: str) -> set[str]:
    return set(pc.unique(table[name]).to_pylist())


def _truth(tables: Sequence[pa.Table]) -> dict[str, int] | None:
    """Truth alleles by site, from the tables' metadata; None when a table does not say."""
    truth: dict[str, int] = {}
    for table in tables:
        count = (table.schema.metadata or {}).get(TRUTH_ALLELES_KEY)
        if count is None:
            return None
        site = table["site"][0].as_py() if table.num_rows else ""
        truth[site] = truth.get(site, 0) + int(count)
    return truth
