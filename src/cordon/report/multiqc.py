"""MultiQC's custom content: what callers proposed, what filters keep, and what the federation spent.

A section is one JSON file that MultiQC finds by its name (`NAME_mqc.json`). The federation's figures come
from federation.json and the certificate alone, which hold nothing that no ledger accounts for. Counts by
sample are a site's own, and so is a report that has them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING
from pathlib import Path
from typing import Any

from cordon import foreign
from cordon.errors import UserError
from cordon.privacy.guarantee import LIFETIME, three_digits
from cordon.report.facts import decisions
from cordon.report.figures.names import beside, display
from cordon.report.reading import read_duplicates, read_object
from cordon.report.sources import Federation, Sources

SUFFIX, READS_SUFFIX = ".summary.json", ".reads.json"
# What may become of an allele (`cordon.calls.normalise.Summary`), in words.
FATES = {
    "kept": "kept",
    "not_carried": "not in the sample's genotype",
    "duplicates_merged": "there already",
    "spanning_deletion": "spanning deletion",
    "symbolic": "symbolic",
    "refused": "other letters than ACGTN",
}
DECISIONS = ("accepted", "quarantined", "missing")
CHAPTERS = {
    "calls": "What callers proposed and what filters keep, for the site that may see its samples.",
    "federation": "What the aggregator recorded, and the model's certificate.",
}


@dataclass(frozen=True)
class Section:
    """One plot or table: ``data`` as MultiQC's ``plot`` wants it, ``settings`` of plot and columns."""

    chapter: str
    name: str
    title: str
    description: str
    plot: str
    data: Mapping[str, Any]
    settings: Mapping[str, Any]

    def content(self) -> dict[str, Any]:
        """The file's content. MultiQC puts words into its page as they are, and descriptions by Markdown."""
        shown: dict[str, Any] = _as_html(
            {"section_name": self.title, "plot_type": self.plot, "data": self.data, **self.settings}
        )
        return {
            "id": f"cordon_{self.name}",
            "parent_id": f"cordon_{self.chapter}",
            "parent_name": self.chapter.capitalize(),
            "parent_description": CHAPTERS[self.chapter],
            "description": foreign.markdown(self.description),
            **shown,
        }


def _as_html(content: Any) -> Any:
    """``content`` with every text in it, keys as well, as `foreign.html` has it."""
    if isinstance(content, str):
        return foreign.html(content)
    if isinstance(content, Mapping):
        return {foreign.html(str(name)): _as_html(value) for name, value in content.items()}
    return [_as_html(item) for item in content] if isinstance(content, list | tuple) else content


def write_sections(sources: Sources, summaries: Sequence[Path], folder: Path) -> list[Path]:
    """Write every section that there is something for; returns the files. UserError names a bad summary."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for section in sections(sources, summaries):
        path = folder / f"cordon_{section.name}_mqc.json"
        path.write_text(json.dumps(section.content(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        written.append(path)
    return written


def write_versions(rows: Iterable[tuple[str, str, str]], folder: Path) -> Path:
    """Write (process, tool, version) as the file that MultiQC reads; a process by its own name."""
    versions: dict[str, dict[str, str]] = {}
    for process, tool, version in rows:
        of_process = versions.setdefault(foreign.html(process.rpartition(":")[2]), {})
        of_process[foreign.html(tool)] = foreign.html(version)
    path = folder / "cordon_mqc_versions.yml"
    path.write_text(json.dumps(versions, indent=2) + "\n", encoding="utf-8")  # JSON is YAML
    return path


def sections(sources: Sources, summaries: Sequence[Path] = ()) -> Iterator[Section]:
    """The sections that the run's files have something for, in the report's order."""
    marked = [path for path in summaries if path.name.endswith(READS_SUFFIX)]
    if marked:
        yield _duplicates(marked)
    if called := [path for path in summaries if path not in marked]:
        yield _normalisation(called)
    if sources.evaluation is not None:
        yield from _accuracy(sources.evaluation)
    if sources.federation is not None:
        yield from _federation(sources.federation)
    if sources.certificate is not None:
        yield _audit(sources.certificate)


def _duplicates(summaries: Sequence[Path]) -> Section:
    """Share of duplicates among each sample's mapped reads."""
    found = sorted((read_duplicates(path) for path in summaries), key=lambda item: str(item["sample"]))
    rows = {
        item["sample"]: {
            "rate": 100 * item["duplicate_rate"],
            "duplicates": item["duplicates"],
            "reads": item["reads"],
            "marking": item["marking"],
        }
        for item in found
    }
    told = "Reads that a program took for copies of one molecule, and that callers leave out."
    warned = [item["sample"] for item in found if item["warning"]]
    if warned:
        told += f" More than half of the reads of {', '.join(warned)} are: look at the samples' library."
    headers = {
        "rate": {"title": "Duplicates", "suffix": "%", "min": 0, "max": 100, "format": "{:,.1f}"},
        "duplicates": {"title": "Duplicates, reads", "format": "{:,.0f}"},
        "reads": {"title": "Mapped reads", "format": "{:,.0f}"},
        "marking": {"title": "Duplicates were"},
    }
    plot = {"id": "cordon_duplicates_table", "title": "Cordon: duplicate reads"}
    return Section(
        "calls", "duplicates", "Duplicate reads", told, "table", rows, {"pconfig": plot, "headers": headers}
    )


def _normalisation(summaries: Sequence[Path]) -> Section:
    """Alleles by sample and caller, by what became of them."""
    counts = {}
    for path in sorted(summaries):
        found = read_object(path)
        lacking = [fate for fate in FATES if fate not in found]
        if lacking:
            raise UserError(
                f"{path}: lacks {', '.join(lacking)}. Give what normalise_variants wrote as --summary."
            )
        counts[path.name.removesuffix(SUFFIX)] = {word: found[fate] for fate, word in FATES.items()}
    told = "Alleles that each caller proposed in each sample, and what became of them before scoring."
    plot = {"id": "cordon_normalisation_plot", "title": "Cordon: alleles by caller", "ylab": "Alleles"}
    return Section("calls", "normalisation", "Alleles by caller", told, "bargraph", counts, {"pconfig": plot})


def _accuracy(evaluation: Mapping[str, Any]) -> Iterator[Section]:
    """How well scores and filters tell real alleles from false ones."""
    alleles = evaluation["alleles"]
    told = (
        f"On {alleles['true']} real and {alleles['false']} false alleles of {len(evaluation['samples'])} "
        "held-out samples. Computed from labels without noise: it stays with whoever may see those samples."
    )
    scores = {
        display(item["name"]): {"AUROC": item["auroc"], "AUPRC": item["auprc"]}
        for item in evaluation["scores"]
    }
    yield _table("calls", "scores", "Scores", told, scores, "Score")
    filters = {
        display(item["name"]): {
            "Real alleles kept": item["true_kept"],
            "False alleles kept": item["false_kept"],
            "Precision": item["precision"],
            "Recall": item["recall"],
            "Sensitivity": item["sensitivity"],
            "F1": item["f1"],
        }
        for item in evaluation["filters"]
    }
    yield _table("calls", "filters", "Filters", told, filters, "Filter")


def _federation(federation: Federation) -> Iterator[Section]:
    """Who spent what, epsilon by round, and what became of the updates."""
    guarantee = federation.lifetime
    meaning = f"{beside(guarantee)}, scope: {LIFETIME}"
    sites = {
        site.site: {
            "Status": site.status,
            "Declared patients": site.declared_patients,
            "Weight": site.weight,
            "Epsilon by RDP": _rounded_up(site.epsilon_rdp),
            "Epsilon by PLD": _rounded_up(site.epsilon_pld),
            "Scope": LIFETIME,
            "Delta": f"{guarantee.delta:g}",
            "Unit": guarantee.unit,
            "Mechanism": site.mechanism,
            "Adjacency": guarantee.adjacency,
        }
        for site in federation.sites
    }
    told = f"What each site spent of its budget of ε = {federation.budget:g}, {meaning}."
    yield _table("federation", "sites", "Sites", told, sites, "Site")
    spent: dict[str, list[tuple[int, float | None]]] = {}
    for turn in federation.rounds:
        for site in turn.sites:
            if site.epsilon_rdp is not None:
                spent.setdefault(site.site, []).append((turn.round, _rounded_up(site.epsilon_rdp)))
    if spent:
        plot = {
            "id": "cordon_epsilon_plot",
            "title": "Cordon: ε spent, by RDP",
            "subtitle": meaning,
            "xlab": "Round",
            "ylab": f"ε per {guarantee.unit}",
            "x_decimals": False,
            "y_lines": [{"value": federation.budget, "label": "budget", "dash": "dash"}],
        }
        told = f"ε that each site has spent after each round, by RDP: {meaning}."
        yield Section(
            "federation", "epsilon", "Epsilon by round", told, "linegraph", spent, {"pconfig": plot}
        )
    rounds = {
        f"round {turn.round}": {
            **{word.capitalize(): sum(site.decision == word for site in turn.sites) for word in DECISIONS},
            "Bytes": sum(site.bytes for site in turn.sites),
            "Seconds": turn.seconds,
        }
        for turn in federation.rounds
    }
    told = "Updates by what the aggregator decided."
    yield _table("federation", "rounds", "Rounds", told, rounds, "Round")
    refused = {
        f"{row.site}, {row.rounds}": {"Decision": row.what, "Reason": row.reason}
        for row in decisions(federation)
    }
    if refused:
        told = f"What kept updates out, with the reason and the rounds. Every ε in a reason is {meaning}."
        yield _table("federation", "decisions", "Quarantines and absences", told, refused, "Site, rounds")


def _audit(certificate: Mapping[str, Any]) -> Section:
    """Every check of the certificate and its verdict; no figure, which may be private."""
    told = "Whether the attacks on the model, and on the code that trained it, were withstood."
    checks = {
        check["name"]: {"Question": check["question"], "Result": check["verdict"]}
        for check in certificate["checks"]
    }
    return _table("federation", "audit", "Audit", told, checks, "Check")


def _table(
    chapter: str, name: str, title: str, told: str, rows: Mapping[str, Mapping[str, Any]], first: str
) -> Section:
    """A table of the rows as they are: nothing is sorted, scaled, coloured or left out."""
    columns = dict.fromkeys(column for row in rows.values() for column in row)
    settings = {
        "pconfig": {
            "id": f"cordon_{name}_table",
            "title": f"Cordon: {title.lower()}",
            "col1_header": first,
            "sort_rows": False,
            "no_violin": True,
        },
        "headers": {column: {"title": column, "scale": False, **_format(column, rows)} for column in columns},
    }
    return Section(chapter, name, title, told, "table", rows, settings)


def _rounded_up(epsilon: float | None) -> float | None:
    """An epsilon as it is shown everywhere: to three digits, never less than was spent."""
    return None if epsilon is None else float(three_digits(epsilon, ROUND_CEILING))


def _format(column: str, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    values = [row.get(column) for row in rows.values()]
    if all(isinstance(value, int) for value in values):
        return {"format": "{:,.0f}"}
    if not all(isinstance(value, int | float | None) for value in values):
        return {}
    return {"format": "{:.3g}" if column.startswith("Epsilon") else "{:,.4f}"}
