"""What tests of the report share: a run's files in small, and a page as its elements, tables and text."""

from __future__ import annotations

import json
import re
import runpy
import tempfile
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

WRITE_REPORT = Path(__file__).parents[2] / "bin" / "write_report.py"
GUARANTEE = {
    "unit": "patient",
    "delta": 1e-5,
    "mechanism": "Poisson-sampled Gaussian",
    "adjacency": "add or remove one unit",
}
BESIDE = "per patient, δ = 10⁻⁵, Poisson-sampled Gaussian mechanism, adjacency: add or remove one unit"
# Of which two rounds of ten steps cost less than epsilon 4, by RDP.
TRAINING = {"rounds": 2, "local_steps": 10, "sampling_rate": 0.5, "noise_multiplier": 3.0}
OVER = "ε = 9.5 after this round is above the budget of 4"
PARAMETERS = {"input": "sheet.csv", "epsilon": 4, "callers": "haplotypecaller", "model": None}


def site_round(site: str, decision: str, spent: float | None, reason: str = "") -> dict[str, Any]:
    return {
        "site": site,
        "decision": decision,
        "reason": reason,
        "epsilon_rdp": spent,
        "epsilon_pld": None if spent is None else spent - 0.25,
        "update_norm": None if spent is None else 1.25,
        "bytes": 0 if spent is None else 1234,
        "ceiling": 5.0 if decision == "accepted" else None,
        "small": 30 if decision == "accepted" else 0,
        "most_small": 40 if decision == "accepted" else None,
    }


def site(name: str, status: str, spent: float, reason: str = "") -> dict[str, Any]:
    return {
        "site": name,
        "weight": 0.25,
        "declared_patients": 40,
        "status": status,
        "reason": reason,
        "epsilon_rdp": spent,
        "epsilon_pld": spent - 0.25,
        "mechanism": GUARANTEE["mechanism"],
        "run_epsilon_rdp": spent / 2,
        "run_epsilon_pld": spent / 2 - 0.125,
        "delta": 1e-5,
    }


def federation() -> dict[str, Any]:
    """Two rounds: north and south accepted, late missing in the second, rogue quarantined in the first."""
    first = [
        site_round("north", "accepted", 2.125),
        site_round("south", "accepted", 2.125),
        site_round("late", "accepted", 2.125),
        site_round("rogue", "quarantined", 9.5, OVER),
    ]
    second = [
        site_round("north", "accepted", 3.375),
        site_round("south", "accepted", 3.375),
        site_round("late", "missing", None, "no update before the deadline"),
    ]
    return {
        "run": "run <7>",
        "plan": {**TRAINING, "epsilon": 4.0, **GUARANTEE, "model": "mlp"},
        "model_hash": "ab" * 32,
        "seconds": 12.5,
        "rounds": [
            {"round": 1, "seconds": 6.1, "sites": first},
            {"round": 2, "seconds": 6.4, "sites": second},
        ],
        "sites": [
            site("north", "finished", 3.375),
            site("south", "finished", 3.375),
            site("late", "missing", 2.125, "no update before the deadline"),
            site("rogue", "quarantined", 9.5, OVER),
        ],
    }


def spent(name: str) -> dict[str, Any]:
    """What a site's own ledger holds, as train_site writes it."""
    plan = federation()["plan"]
    return {
        "site": name,
        "epsilon_rdp": 3.875,
        "epsilon_pld": 3.625,
        "run_epsilon_rdp": 1.875,
        "run_epsilon_pld": 1.75,
        "budget": 4.0,
        **GUARANTEE,
        "run_mechanism": GUARANTEE["mechanism"],
        "plan": {**plan, "run": "run <7>"},
    }


def score(name: str, auroc: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "auroc": auroc,
        "auprc": auroc,
        "roc": auroc and {"fpr": [0.0, 0.1, 1.0], "tpr": [0.0, 0.9, 1.0]},
        "pr": auroc and {"recall": [0.0, 0.9, 1.0], "precision": [1.0, 0.95, 0.8]},
    }


def evaluation() -> dict[str, Any]:
    kept = {
        "true_kept": 1711,
        "false_kept": 39,
        "sensitivity": 0.924865,
        "recall": 0.95,
        "precision": 0.977714,
    }
    return {
        "samples": ["north/secret-sample-name"],
        "truth_source": "truth set",
        "alleles": {"true": 1801, "false": 450, "truth": 1850},
        "scores": [
            score("cordon", 0.961234),
            score("haplotypecaller QUAL", 0.783456),
            score("haplotypecaller QD", 0.701777),
        ],
        "filters": [
            {"name": "haplotypecaller", **kept, "f1": 0.950556},
            {"name": "cordon", **kept, "true_kept": 1722, "f1": 0.951234},
        ],
        "calibration": {
            "bins": [
                {"low": 0.2, "high": 0.3, "alleles": 450, "stated": 0.25, "real": 0.2},
                {"low": 0.9, "high": 1.0, "alleles": 1801, "stated": 0.95, "real": 0.975},
            ],
            "ece": 0.029998,
            "brier": 0.041999,
        },
        "strata": [],
    }


def shape(name: str, snv: int, ti_tv: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "alleles": snv + 3,
        "types": {"SNV": snv, "insertion": 1, "deletion": 2, "complex": 0},
        "sizes": {"1 bp": 2, "2-5 bp": 1, "6-20 bp": 0, "over 20 bp": 0},
        "transitions": 0,
        "transversions": 0,
        "ti_tv": ti_tv,
        "heterozygous": 0,
        "homozygous": 0,
        "het_hom": 1.375,
    }


def callset() -> dict[str, Any]:
    return {
        "samples": 4,
        "alleles": 2903,
        "callers": [
            {"callers": ["bcftools"], "alleles": 403, "pass": 13},
            {"callers": ["bcftools", "haplotypecaller"], "alleles": 2500, "pass": 2401},
        ],
        "filters": [shape("no filter", 2900, 1.8125), shape("cordon", 2411, 2.0625)],
    }


TRACE = """task_id\tname\tstatus\trealtime\t%cpu\tpeak_rss
1\tCORDON:CALL:NORMALISE_READS (north-secret)\tCOMPLETED\t1500\t50.0\t90000000
2\tCORDON:CALL:NORMALISE_READS (south-secret)\tCACHED\t2500\t150.0\t97000000
3\tCORDON:FEDERATE:TRAIN_SITE (north)\tCOMPLETED\t60000\t-\t-
"""
LEDGER = "".join(
    json.dumps(row) + "\n"
    for row in (
        {"kind": "enrolled", "site": "north", "hash": "aa"},
        *(
            {
                "kind": "decision", "site": site, "identity": f"of {site}", "run": "r", "round": number,
                "hash": "bb77",
                "events": [
                    {"mechanism": "Poisson-sampled Gaussian", "noise_multiplier": 1.375, "sampling_rate": 0.5,
                     "steps": 10}
                ],
            }
            for site, number in (("north", 1), ("south", 1), ("north", 2))
        ),
        {
            "kind": "decision", "site": "late", "identity": "of late", "run": "r", "round": 1,
            "hash": "bb78", "events": [],
        },
    )
)  # fmt: skip
VERSIONS = '"CORDON:CALL":\n    gatk4: 4.6.2.0\n"CORDON:SCORE":\n    cordon: 0.1.0\n'


@dataclass
class Page(HTMLParser):
    """What the tests look at: elements with their attributes, and each table's caption and cells."""

    html: str
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._silent = 0
        self._caption = self._cell = False
        self.feed(self.html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._silent += tag in ("script", "style")
        if tag == "table":
            self.tables.append({"caption": "", "rows": []})
        if tag == "tr":
            self.tables[-1]["rows"].append([])
        if tag in ("td", "th"):
            self.tables[-1]["rows"][-1].append("")
            self._cell = True
        self._caption = self._caption or tag == "caption"

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")
        self._caption = self._caption and tag != "caption"
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._silent:
            return
        self.text += f"{data} " if data.strip() else " "
        if self._caption:
            self.tables[-1]["caption"] += data.replace("\xa0", " ")
        elif self._cell:
            self.tables[-1]["rows"][-1][-1] += data

    def table(self, caption: str) -> dict[str, list[str]]:
        """The rows of the table whose caption begins so: first cell -> the others."""
        found = next(table for table in self.tables if table["caption"].strip().startswith(caption))
        return {
            " ".join(row[0].split()): [" ".join(cell.split()) for cell in row[1:]] for row in found["rows"]
        }

    def values(self, kind: str) -> list[dict[str, str]]:
        return [attrs for tag, attrs in self.elements if tag == "data" and attrs.get("class", "") == kind]


def write(folder: Path, **inputs: Any) -> tuple[Result, Path]:
    """Run write_report on the inputs given as JSON values, or as text for versions, ledger and trace."""
    arguments = ["--output", str(folder / "report.html"), "--shareable", str(folder / "shareable.html")]
    for name, value in {"parameters": PARAMETERS, **inputs}.items():
        path = folder / name
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        arguments += [f"--{name}", str(path)]
    main = runpy.run_path(str(WRITE_REPORT))["main"]
    return CliRunner().invoke(main, arguments), folder / "report.html"


def page(folder: Path, **inputs: Any) -> Page:
    result, path = write(folder, **inputs)
    assert result.exit_code == 0, result.output
    return Page(path.read_text(encoding="utf-8"))


def certificate() -> dict[str, Any]:
    """A certificate's content: two checks, of which the attack's figures are public."""
    interval = {"value": 0.512, "low": 0.401, "high": 0.623}
    rates = [{"fpr": 0.001, "tpr": None, "reached": None, "reason": "90 non-members cannot show it"}]
    rates += [{"fpr": 0.01, "tpr": interval, "reached": interval, "reason": ""}]
    result = {
        "attack": "lira_online", "view": "updates", "confidence": 0.998, "auc": interval, "rates": rates,
    }  # fmt: skip
    checks = [
        {
            "name": "claims", "question": "Borne out?", "verdict": "passed", "reason": "yes",
            "most": "any smaller epsilon", "private": False, "figures": {},
        },
        {
            "name": "membership", "question": "Who?", "verdict": "not able to refute", "reason": "AUC <0.6>",
            "most": "not even an attack that is always right", "private": False,
                        "figures": {
                "results": [result], "most": {"auc": 0.857, "tpr": 0.210887, "fpr": 0.01, **GUARANTEE},
            },
        },
    ]  # fmt: skip
    return {
        "kind": "cordon certificate 3", "issued": "2026-11-25T10:00:00Z", "public_key": "cd" * 32,
        "model": {"hash": "ab" * 32, "architecture": "mlp", "run": "run <7>"},
        "guarantee": {
            "epsilon": 3.375, "epsilon_pld": 3.125, "accountant": "RDP", **GUARANTEE,
            "scope": "all runs in the ledger",
        },
        "plan": federation()["plan"], "risks": [], "checks": checks, "trust": ["Sites <trust> themselves."],
        "questions": [{"question": "How strong?", "answer": "epsilon is small"}],
        "law": [{"term": "GDPR", "bearing": "none claimed"}],
        "ledger": {"key": "cd" * 32, "rows": 3, "head": "ef" * 32},
        "trained_by": [
            {"site": "north", "statement": "north: code abc, not the one that audited; SEEDED: NOT PRIVATE"}
        ],
        "audit": {
            "attempt": 2, "earlier": [{"attempt": 1, "verdicts": None}], "code": "ab" * 32, "trainings": 64,
        },
    }  # fmt: skip


def stratum(
    kind: str, name: str, ours: float | None, theirs: float | None, false: int = 50
) -> dict[str, Any]:
    found = {"cordon": ours, "haplotypecaller QUAL": theirs, "haplotypecaller QD": theirs and theirs - 0.25}
    scores = [{"name": name, "auroc": auroc, "auprc": auroc} for name, auroc in found.items()]
    filters = [{**item, "recall": 0.75, "precision": 0.5} for item in evaluation()["filters"]]
    alleles = {"true": 100, "false": false, "truth": None}
    return {"kind": kind, "name": name, "alleles": alleles, "scores": scores, "filters": filters}


STRATA = [
    stratum("type", "SNV", 0.97, 0.8),
    stratum("frequency", "0.01-0.1 %", 0.875, 0.7),
    stratum("zygosity", "heterozygous", 0.75, 0.9),
    stratum("context", "GC-rich", 0.625, 0.5, false=19),
    stratum("site", "north-0", None, None),
]


def specs(written: Page) -> dict[str, Any]:
    """The figures' specifications by name."""
    found = re.findall(r'<script type="application/json" id="spec-(\w+)">(.*?)</script>', written.html, re.S)
    return {name: json.loads(content) for name, content in found}


@cache
def everything() -> Page:
    """The site's own report of a run that has everything but a certificate."""
    with tempfile.TemporaryDirectory() as folder:
        return page(
            Path(folder), federation=federation(), evaluation=evaluation(), callset=callset(), trace=TRACE,
            versions=VERSIONS, ledger=LEDGER,
        )  # fmt: skip
