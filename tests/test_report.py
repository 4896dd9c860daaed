"""The report says what the JSON says, explains every epsilon, and needs no network."""

from __future__ import annotations

import html
import itertools
import json
import re
import runpy
import shutil
import subprocess
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

WRITE_REPORT = Path(__file__).parents[1] / "bin" / "write_report.py"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
GUARANTEE = {
    "unit": "patient",
    "delta": 1e-5,
    "mechanism": "Gaussian",
    "adjacency": "add or remove one patient",
}
BESIDE = "per patient, δ = 10⁻⁵, Gaussian mechanism, adjacency: add or remove one patient"
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
        "plan": {"rounds": 2, "noise_multiplier": 1.3, "epsilon": 4.0, **GUARANTEE, "model": "mlp"},
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
            score("north alone", 0.901777),
        ],
        "filters": [
            {"name": "haplotypecaller", **kept, "f1": 0.950556},
            {"name": "cordon", **kept, "true_kept": 1722, "f1": 0.951234},
        ],
        "strata": [],
    }


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
    """Run write_report on the inputs given as JSON values, or as text for versions and ledger."""
    arguments = ["--output", str(folder / "report.html")]
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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Page:
    versions = '"CORDON:CALL":\n    gatk4: 4.6.2.0\n"CORDON:SCORE":\n    cordon: 0.1.0\n'
    ledger = '{"hash": "aa"}\n{"hash": "bb77"}\n'
    return page(
        tmp_path_factory.mktemp("report"),
        federation=federation(),
        evaluation=evaluation(),
        versions=versions,
        ledger=ledger,
    )


def test_the_headline_says_who_trained_and_what_it_brought(whole: Page) -> None:
    assert (
        "Three sites trained one model in two rounds; it tells real alleles from false ones better"
        in whole.text
    )
    assert "went from 0.783 (HaplotypeCaller QUAL) to 0.961 (Cordon)" in re.sub(
        r" (?=\))|(?<=\() ", "", whole.text
    )
    assert "2 of 4 sites finished." in whole.text
    assert (
        "rogue was quarantined: ε = 9.5 after this round is above the budget of 4 (per patient" in whole.text
    )


def test_epsilon_by_site_and_round_is_that_of_the_federation(whole: Page) -> None:
    sites = whole.table("ε spent by each site")
    assert sites["north"] == ["finished", "3.38", "3.12", "84 %", "40", "0.25"]
    assert sites["rogue"][:4] == ["quarantined", "9.50", "9.25", "238 %"]
    rounds = whole.table("ε spent so far after each round")
    assert rounds["late"] == ["2.121.88", "missing"]
    assert rounds["rogue"] == ["9.509.25quarantined", "–"]
    exact = {attrs["value"] for attrs in whole.values("epsilon")}
    assert {"2.125", "1.875", "3.375", "3.125", "9.5", "9.25", "4.0"} == exact


def test_every_epsilon_has_its_unit_delta_mechanism_and_adjacency(whole: Page) -> None:
    shown = whole.values("epsilon")
    assert len(shown) > 15
    for attrs in shown:
        assert {key: attrs[f"data-{key}"] for key in GUARANTEE} == {k: str(v) for k, v in GUARANTEE.items()}
    for table in whole.tables:
        cells = " ".join(cell for row in table["rows"] for cell in row)
        if "ε" in cells or "epsilon" in cells:
            assert BESIDE in table["caption"], table["caption"]
    captions = re.findall(r'<p class="note">(Solid: .*?)</p>', whole.html, flags=re.S)
    assert [BESIDE in caption.replace("\xa0", " ") for caption in captions] == [True]


def test_every_epsilon_with_a_number_in_running_text_is_followed_by_what_it_means(whole: Page) -> None:
    text = re.sub(r"<(script|style|table|data)\b.*?</\1>", "#", whole.html, flags=re.S)
    text = " ".join(re.sub(r"<[^>]+>", "", text).replace("&nbsp;", " ").replace("\xa0", " ").split())
    places = [match.end() for match in re.finditer(r"ε = [\d#]", text)]
    assert len(places) >= 3
    for place in places:
        assert BESIDE in text[place : place + 140], text[place : place + 140]


def test_a_spend_without_bound_is_infinite_and_drawn_nowhere(tmp_path: Path) -> None:
    endless = federation()
    for row in (endless["rounds"][0]["sites"][3], endless["sites"][3]):
        row["epsilon_rdp"], row["epsilon_pld"] = float("inf"), None
    written = page(tmp_path, federation=endless)
    assert written.table("ε spent by each site")["rogue"][:4] == ["quarantined", "∞", "–", "∞ %"]


def test_a_site_that_stopped_by_itself_is_told_once(tmp_path: Path) -> None:
    reason = "its own budget allows no further round"
    stopped = federation()
    stopped["rounds"][1]["sites"][2]["reason"] = reason
    stopped["sites"][2] |= {"status": "stopped", "reason": reason}
    written = page(tmp_path, federation=stopped)
    decisions = written.table("Updates that were not taken")
    assert decisions["late"] == ["missing", "2", reason]
    assert "late stopped early: its own budget allows no further round." in written.text


def test_decisions_are_told_with_rounds_and_reasons(whole: Page) -> None:
    decisions = whole.table("Updates that were not taken")
    assert decisions["rogue"] == ["quarantined", "1", OVER]
    assert decisions["late"] == ["missing", "2", "no update before the deadline"]
    assert "2 rows" in re.sub(r"\s+", " ", whole.text)
    assert "bb77" in whole.text


def test_scores_and_filters_are_those_of_the_evaluation(whole: Page) -> None:
    scores = whole.table("Scores")
    assert list(scores)[1:] == ["Cordon", "north alone", "HaplotypeCaller QUAL"]
    assert scores["Cordon"] == ["0.961", "0.961"]
    filters = whole.table("Filters")
    assert filters["HaplotypeCaller its own filter"] == ["1,711", "39", "0.925", "0.978", "0.951"]
    assert filters["Cordon PASS"] == ["1,722", "39", "0.925", "0.978", "0.951"]
    exact = {attrs["value"] for attrs in whole.values("")}
    assert {"0.961234", "0.783456", "0.901777", "0.924865", "0.977714"} <= exact


def test_the_figures_hold_the_numbers_of_the_json(whole: Page) -> None:
    specs = dict(
        re.findall(r'<script type="application/json" id="spec-(\w+)">(.*?)</script>', whole.html, re.S)
    )
    assert set(specs) == {"epsilon", "norms", "roc", "pr"}
    spent = json.loads(specs["epsilon"])["layer"][0]["data"]["values"]
    rdp = [(row["sites"], row["round"], row["epsilon"]) for row in spent if row["accountant"] == "RDP"]
    assert ("north, south", 2, 3.375) in rdp
    assert ("late", 1, 2.125) in rdp
    curve = json.loads(specs["roc"])["layer"][0]["data"]["values"]
    assert [(row["x"], row["y"]) for row in curve if row["score"] == "Cordon"] == [(0, 0), (0.1, 0.9), (1, 1)]
    points = json.loads(specs["roc"])["layer"][1]["data"]["values"]
    assert [(row["name"], row["x"], row["y"]) for row in points] == [
        ("haplotypecaller", 39 / 450, 1711 / 1801),
        ("cordon", 39 / 450, 1722 / 1801),
    ]
    assert [row["norm"] for row in json.loads(specs["norms"])["data"]["values"]] == [1.25] * 6


def stratum(
    kind: str, name: str, ours: float | None, theirs: float | None, false: int = 50
) -> dict[str, Any]:
    scores = [
        {"name": name, "auroc": auroc, "auprc": auroc}
        for name, auroc in (("cordon", ours), ("haplotypecaller QUAL", theirs), ("north alone", ours))
    ]
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


def test_groups_of_alleles_are_shown_by_kind_with_those_of_rare_alleles_first(tmp_path: Path) -> None:
    written = page(tmp_path, evaluation={**evaluation(), "strata": STRATA})
    table = written.table("AUROC by group of alleles")
    assert list(table)[1:] == [
        "Allele frequency in the resource", "0.01–0.1 %",
        "Zygosity, where no allele frequency is known", "heterozygous",
        "Type", "SNV", "Sequence around it", "GC-rich", "Site", "north-0",
    ]  # fmt: skip
    assert table["0.01–0.1 %"] == ["100", "50", "0.875", "0.700", "0.875"]
    assert table["north-0"] == ["100", "50", "–", "–", "–"]
    assert written.table("Filters by group of alleles")["GC-rich"] == ["0.7500.500"] * 2
    assert "zygosity stands in for it" in written.text
    assert all("scope" in attrs for tag, attrs in written.elements if tag == "th")


def test_small_groups_and_groups_without_an_auroc_are_not_drawn(tmp_path: Path) -> None:
    written = page(tmp_path, evaluation={**evaluation(), "strata": STRATA})
    specs = dict(
        re.findall(r'<script type="application/json" id="spec-(\w+)">(.*?)</script>', written.html, re.S)
    )
    marks = json.loads(specs["strata"])["layer"][1]["data"]["values"]
    assert [(row["group"], row["auroc"]) for row in marks if row["score"] == "Cordon"] == [
        ("Frequency: 0.01–0.1 %", 0.875),
        ("Zygosity: heterozygous", 0.75),
        ("Type: SNV", 0.97),
    ]
    label = next(attrs["aria-label"] for _, attrs in written.elements if attrs.get("data-figure") == "strata")
    assert "in 3 groups; Cordon's is higher in 2" in label


def test_labels_that_come_of_known_sites_are_said_to(tmp_path: Path) -> None:
    said = "not of a truth set"
    assert said in page(tmp_path, evaluation={**evaluation(), "truth_source": "known sites"}).text
    assert said not in page(tmp_path, evaluation=evaluation()).text


def test_settings_and_versions_are_listed(whole: Page) -> None:
    assert whole.table("Settings") == {
        "input": ["sheet.csv"],
        "epsilon": ["4"],
        "callers": ["haplotypecaller"],
    }
    assert whole.table("Software")["CORDON:CALL"] == ["gatk4", "4.6.2.0"]


def test_nothing_is_loaded_from_the_network(whole: Page) -> None:
    for tag, attrs in whole.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "poster", "action"):
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, attrs)
    assert not any(tag in ("link", "iframe", "object", "embed", "base", "img") for tag, _ in whole.elements)
    assert not re.search(r"url\(\s*['\"]?(?!#)", whole.html.split("</style>")[0])
    assert "@import" not in whole.html.split("</style>")[0]
    policy = next(
        attrs["content"] for tag, attrs in whole.elements if tag == "meta" and "http-equiv" in attrs
    )
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert len(whole.html.encode()) < 3_000_000
    assert whole.html.count("window.vegaEmbed=") == 1


def test_no_sample_is_named_and_names_are_escaped(whole: Page) -> None:
    assert "secret-sample-name" not in whole.html
    assert "run &lt;7&gt;" in whole.html
    assert "run <7>" not in whole.html


def test_headings_tables_and_figures_can_be_read_aloud(whole: Page) -> None:
    levels = [int(tag[1]) for tag, _ in whole.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(table["caption"].strip() for table in whole.tables)
    assert all("scope" in attrs for tag, attrs in whole.elements if tag == "th")
    figures = [attrs for _, attrs in whole.elements if "data-figure" in attrs]
    assert len(figures) == 4
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 40 for attrs in figures)
    assert len(re.findall(r'<div class="still"><svg viewBox', whole.html)) == 4


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_has_contrast_of_at_least_4_5_and_lines_of_at_least_3(whole: Page, scheme: int) -> None:
    colours = dict(
        re.findall(r"--([\w-]+): (#\w{6});", whole.html.split(":root {")[scheme + 1].split("}")[0])
    )

    def contrast(front: str, back: str) -> float:
        dark, light = sorted((luminance(colours[front]), luminance(colours[back])))
        return (light + 0.05) / (dark + 0.05)

    for front in ("ink", "soft", "good", "alarm"):
        for back in ("paper", "card", "wash"):
            assert contrast(front, back) >= 4.5, (front, back)
    assert contrast("alarm", "alarm-wash") >= 4.5
    assert contrast("caution", "caution-wash") >= 4.5
    for line in ("muted-line", *(f"series-{number}" for number in range(1, 7))):
        assert contrast(line, "card") >= 3, line


def test_without_held_out_truth_the_page_says_so(tmp_path: Path) -> None:
    written = page(tmp_path, federation=federation())
    assert "No held-out sample has a truth set, so accuracy was not measured." in written.text
    assert "Software versions were not recorded." in written.text


def test_without_a_federation_the_page_says_so_and_prints_no_epsilon(tmp_path: Path) -> None:
    written = page(tmp_path, evaluation=evaluation())
    assert (
        "A released model tells real alleles from false ones better than HaplotypeCaller QUAL" in written.text
    )
    assert "Nothing was trained in this run" in written.text
    assert written.values("epsilon") == []
    assert written.table("Settings")["epsilon"] == ["not used: nothing was trained in this run"]


def test_parameters_alone_make_a_page_without_scripts(tmp_path: Path) -> None:
    written = page(tmp_path)
    assert "Candidate alleles were scored with a released model." in written.text
    assert "<script" not in written.html


def test_one_class_only_leaves_out_the_curves_and_says_why(tmp_path: Path) -> None:
    one = {**evaluation(), "scores": [score("cordon", None)], "alleles": {"true": 5, "false": 0, "truth": 5}}
    written = page(tmp_path, evaluation=one)
    assert "alleles of one class only, so no ROC curve can be drawn" in written.text
    assert written.table("Scores")["Cordon"] == ["–", "–"]


def test_a_worse_model_is_called_worse(tmp_path: Path) -> None:
    bad = {**evaluation(), "scores": [score("cordon", 0.7), score("haplotypecaller QUAL", 0.8)]}
    assert "worse than HaplotypeCaller QUAL does" in page(tmp_path, evaluation=bad).text


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"federation": {**federation(), "plan": {}}}, "federation: lacks 'unit'"),
        ({"federation": "{"}, "federation: not JSON"),
        ({"evaluation": {"samples": []}}, "evaluation: lacks alleles, scores, filters"),
        ({"versions": "tool: 1\n"}, "versions, line 1: not `PROCESS:` or an indented `tool: version`"),
        ({"ledger": '{"hash": "a"}\n{"ha'}, "ledger, row 2: not a ledger row"),
        ({"parameters": []}, "parameters: holds no JSON object"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    tmp_path: Path, inputs: dict[str, Any], message: str
) -> None:
    result, path = write(tmp_path, **inputs)
    assert result.exit_code == 2
    assert message in result.output
    assert not path.exists()


def browse(path: Path, *options: str) -> str:
    """What headless Chromium prints for a page, its scripts run."""
    flags = ("headless", "no-sandbox", "disable-gpu", "hide-scrollbars", "virtual-time-budget=4000")
    profile = f"--user-data-dir={path.parent / 'profile'}"
    command = [str(CHROMIUM), *(f"--{flag}" for flag in flags), profile, *options, path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed, so no browser can draw the report")
def test_a_browser_draws_every_figure_and_a_phone_need_not_scroll_sideways(
    tmp_path: Path, whole: Page
) -> None:
    report, phone = tmp_path / "report.html", tmp_path / "phone.html"
    report.write_text(whole.html, encoding="utf-8")
    # A window cannot be as narrow as a phone, a frame can; the page inside it measures itself.
    facts = "[innerWidth, document.documentElement.scrollWidth, document.querySelectorAll('.is-live').length]"
    measure = f"<script>setTimeout(() => {{ parent.document.title = {facts} }}, 1500)</script>"
    inside = html.escape(whole.html + measure, quote=True)
    frame = f'<title></title><iframe style="width:400px;height:900px;border:0" srcdoc="{inside}"></iframe>'
    phone.write_text(f"<!doctype html><meta charset=utf-8>{frame}", encoding="utf-8")
    for scheme in (0, 1):
        picture = tmp_path / f"{scheme}.png"
        colours = f"--blink-settings=preferredColorScheme={scheme}"
        browse(report, colours, "--window-size=1280,5000", f"--screenshot={picture}")
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert picture.stat().st_size > 100_000
    title = re.search(r"<title>(\d+),(\d+),(\d+)</title>", browse(phone, "--dump-dom"))
    assert title is not None
    width, needed, drawn = (int(number) for number in title.groups())
    assert (width, drawn) == (400, 4)
    assert needed <= width


@pytest.mark.parametrize(
    ("decision", "released"), [("refine", "the refined model"), ("keep", "the public start")]
)
def test_a_public_start_is_compared_with_what_came_of_it(
    tmp_path: Path, decision: str, released: str
) -> None:
    start = {"rows": 1234, "pretrained_auroc": 0.9512, "refined_auroc": 0.9498, "decision": decision}
    written = page(tmp_path, federation={**federation(), "start": start})
    assert (
        "AUROC on 1,234 held-out public alleles: 0.9512 at the start, 0.9498 after training" in written.text
    )
    assert f"Released: {released}." in written.text
    assert "public start" not in page(tmp_path, federation=federation()).text


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
            "name": "claims", "question": "Borne out?", "passed": True, "tried": True, "reason": "yes",
            "private": False, "figures": {},
        },
        {
            "name": "membership", "question": "Who?", "passed": True, "tried": True, "reason": "AUC <0.6>",
            "private": False,
            "figures": {"results": [result]},
        },
    ]  # fmt: skip
    return {
        "kind": "cordon certificate 1", "issued": "2026-11-25T10:00:00Z", "public_key": "cd" * 32,
        "model": {"hash": "ab" * 32, "architecture": "mlp", "run": "run <7>"},
        "guarantee": {"epsilon": 3.375, "epsilon_pld": 3.125, "accountant": "RDP", **GUARANTEE},
        "checks": checks, "trust": ["Sites <trust> themselves."],
        "questions": [{"question": "How strong?", "answer": "epsilon is small"}],
        "law": [{"term": "GDPR", "bearing": "none claimed"}],
        "ledger": {"key": "cd" * 32, "rows": 3, "head": "ef" * 32},
    }  # fmt: skip


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page(tmp_path_factory.mktemp("certified"), federation=federation(), certificate=certificate())


def test_the_audit_is_told_check_by_check_with_what_the_certificate_says(certified: Page) -> None:
    assert certified.table("What the audit asked")["membership"] == ["Who?", "passed", "AUC <0.6>"]
    told = certified.table("How well attackers told")["lira online"]
    assert told == [
        "updates", "0.512 (0.401 to 0.623)", "too few others", "0.512 (0.401 to 0.623)",
    ]  # fmt: skip
    assert "Sites <trust> themselves." in certified.text
    assert "No attack was run" not in certified.text
    assert "cd" * 32 in certified.text


def test_every_epsilon_beside_a_certificate_has_its_words_too(certified: Page) -> None:
    test_every_epsilon_with_a_number_in_running_text_is_followed_by_what_it_means(certified)
    for table in certified.tables:
        cells = " ".join(cell for row in table["rows"] for cell in row)
        if "ε" in cells or "epsilon" in cells:
            assert BESIDE in table["caption"], table["caption"]


def test_a_site_whose_aggregator_is_elsewhere_tells_of_its_certificate_alone(tmp_path: Path) -> None:
    written = page(tmp_path, certificate=certificate())
    assert written.table("What the audit asked")["claims"] == ["Borne out?", "passed", "yes"]
    assert {attrs["value"] for attrs in written.values("epsilon")} == {"3.375"}


def test_a_run_without_an_audit_says_so(whole: Page) -> None:
    assert "The model was not audited" in whole.text
    assert "No attack was run" in whole.text


def test_what_is_no_certificate_is_named(tmp_path: Path) -> None:
    result, written = write(tmp_path, federation=federation(), certificate={"kind": "other"})
    assert result.exit_code == 2
    assert "no certificate of this version" in result.output
    assert not written.exists()
