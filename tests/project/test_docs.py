"""The documentation builds without a warning, and what it tells its readers to type is there and works."""

from __future__ import annotations

import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest
from sphinx.util.inventory import InventoryFile

import cordon
import docs_lab
from certificate_lab import Lab
from cordon.cli import main as command
from cordon.inputs.run_parameters import properties
from cordon.ledger.site import SiteLedger
from cordon.privacy.events import Event
from cordon.privacy.grouping import Grouping
from docs_lab import ROOT, SCHEMA, blocks, played, problems, problems_of_page, shape, unlike

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = [block for page in PAGES for block in blocks(page) if block.mark == "run"]


@pytest.fixture(scope="module")
def site() -> Path:
    """The folder of the built documentation, by the command that `make docs` runs."""
    build = subprocess.run(
        ["make", "docs"], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
    )  # fmt: skip
    assert build.returncode == 0, build.stdout
    return ROOT / "build" / "docs"


class Loads(HTMLParser):
    """What a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio"):
            self.found.append(given.get("src") or "")
        if tag == "link" and "search" not in (given.get("rel") or ""):
            self.found.append(given.get("href") or "")


@pytest.mark.timeout(300)
@pytest.mark.stress
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text())
        assert loads.found
        assert not [address for address in loads.found if re.match(r"(https?:)?//", address)], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", sheet.read_text()), sheet


@pytest.mark.stress
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("[a page](caling.md)", "caling.md"),
        ("[a part](index.md#no-such-part)", "no-such-part"),
        ("![a picture](pictures/none.png)", "none.png"),
        ("```{eval-rst}\n:option:`nextflow run --epsilom`\n```", "--epsilom"),
    ],
    ids=["page", "heading", "picture", "option"],
)
def test_a_reference_to_nothing_fails_the_build(text, warning, tmp_path):
    (tmp_path / "index.md").write_text(f"# A site\n\n{text}\n")
    flags = re.search(r"-m (sphinx .*) --doctree-dir", (ROOT / "Makefile").read_text()).group(1).split()
    build = subprocess.run(
        [sys.executable, "-m", *flags, "-c", str(ROOT / "docs"), str(tmp_path), str(tmp_path / "site")],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert build.returncode != 0
    assert warning in build.stdout


def options(command: click.Command, name: str) -> Iterator[str]:
    """Every option of a command and of those below it, as the site's index of names has it."""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield f"{name}.{parameter.opts[0]}"
    for each in getattr(command, "commands", {}).values():
        yield from options(each, f"{name}-{each.name}")


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_every_parameter_option_and_module_stands_in_the_reference(site):
    index = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    expected = {f"nextflow-run.--{name}" for name in properties(SCHEMA)} | {*options(command, "cordon")}
    for path in (ROOT / "bin").glob("*.py"):
        expected |= {*options(docs_lab.command_of(path), path.name)}
    assert len(expected) > 250
    assert expected <= set(index["std:cmdoption"])
    modules = {found.name for found in pkgutil.walk_packages(cordon.__path__, "cordon.")}
    assert {name for name in modules if ".bundle" not in name} <= set(index["py:module"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_file_that_a_page_names_is_there(page):
    assert problems_of_page(page) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("cordon ledgers show state/north.sqlite", "cordon: no ledgers"),
        ("cordon ledger shows state/north.sqlite", "cordon ledger: no shows"),
        ("cordon ledger show state/north.sqlite --epsilons 3", "No such option"),
        ("cordon ledger show state/north.sqlite --epsilon three", "'three' is not a valid float"),
        ("cordon ledger show", "'LEDGER' is missing"),
        ("cordon pretrain a.parquet --model forest --output m", "'forest' is not one of"),
        ("cordon pretrain a.parquet", "'--output' is missing"),
        ("cordon relay a b --aggregator host:1", "b is one too many"),
        ("srun cordon doctor --agregator host:1", "No such option"),
        ("bin/train_site.py --sight north …", "No such option"),
        ("bin/train_sites.py --help", "no such command here"),
        (".venv/bin/python benchmarks/cohort.py --repeat 3 t.parquet", "No such option"),
        ("nextflow run . --epsilom 3", "Did you mean --epsilon?"),
        ("nextflow run . --transport pigeons", "--transport"),
        ("tools/bin/nextflow run . -profiles local", "-profiles is no option"),
        ("nextflow run . -profile slurm,singularty", "singularty: no such profile"),
        ("nextflow run cordon --help", "starts it with nextflow run ."),
        ("nextflow run . --help epsilom", "--help"),
        ("make dems", "no target dems"),
        ("make demo OUTPUT=x", "no variable OUTPUT"),
        ('make demo ARGS="--epsilom 3"', "Did you mean --epsilon?"),
        ('make images IMAGES="pithon"', "no IMAGES pithon"),
        ("containers/agregator/build", "no such command here"),
    ],
)
def test_a_mistyped_command_is_found(line, found, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"Try:\n\n```bash\nCORDON_THREADS=2 {line}   # as ever\n```\n")
    problem, *_ = problems_of_page(page)
    assert problem.startswith("page.md:3: ")
    assert found in problem


def test_a_mistyped_command_or_file_in_prose_is_found_too(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "See `cordon ledger show|verifi` and\n`src/cordon/ledgers.py`, not `src/cordon/ledger/log.py`;\n"
        "`cordon ledger verify --head` needs no value here.\n"
    )
    assert problems_of_page(page) == [
        "page.md:1: cordon ledger: no verifi",
        "page.md:1: src/cordon/ledgers.py: no such file here",
    ]


def test_lines_are_split_as_a_shell_does():
    text = "umask 077; cordon relay /a \\\n  --aggregator 'h:1' > log && ls | grep x  # cordon nonsense\n"
    lines = list(docs_lab.command_lines(text))
    assert lines == [
        ["umask", "077"], ["cordon", "relay", "/a", "--aggregator", "h:1"], ["ls"], ["grep", "x"],
    ]  # fmt: skip
    assert [problem for words in lines for problem in problems(words)] == []


def test_outputs_are_compared_by_their_lines_and_not_by_their_numbers():
    real = "run 2026-11-26-54ed4f10 took  3 s\nhash a1fff47a0953\nspent: epsilon 8\nleft: 1e-05\n"
    assert unlike("run 2027-01-02-0a took 17.5 s\n…\nspent: epsilon 3\n", real) == []
    assert unlike("hash …\nleft: 0.1", real) == []
    assert unlike("spent: epsilon 8\nhash a1fff47a0953", real) == ["hash #"]
    assert unlike("spend: epsilon 8", real) == ["spend: epsilon #"]
    assert shape("noise  3.322") == "noise #"
    assert shape("A T 9.5 CORDONLowScore -2.4 bcftools") == shape("A T 30 PASS 2.4e-05  bcftools")
    assert shape("north-p08 sent") == "north-p# sent"


@pytest.fixture(scope="module")
def consortium(tmp_path_factory) -> Path:
    """A clone of this repository in which a demo left its ledger, its model and its certificate."""
    folder = tmp_path_factory.mktemp("clone")
    for path in ROOT.iterdir():
        if path.name not in (".git", "build", "dist", "results", "work", "state"):
            (folder / path.name).symlink_to(path)
    demo = folder / "results" / "demo"
    for place in (demo / "federation", demo / "state" / "sites"):
        place.mkdir(parents=True)
    ledger = SiteLedger(demo / "state" / "sites" / "north.sqlite", epsilon=8.0, delta=1e-5)
    for number in range(1, 11):
        ledger.reserve(
            "2026-11-26-54ed4f10", number, Event(3.33, 0.5, 10), Grouping("patient", "mlp", 256, 40),
            [f"p{patient}" for patient in range(6)], accountant="rdp",
        )  # fmt: skip
        ledger.mark_sent("2026-11-26-54ed4f10", number)
    lab = Lab(tmp_path_factory.mktemp("aggregator"))
    lab.issue(demo / "federation")
    lab.model.save(demo / "federation" / "model.safetensors")
    # Readers of the guides have the files beside them.
    (folder / "state").symlink_to(demo / "state")
    for name in ("certificate.json", "model.safetensors"):
        (folder / name).symlink_to(demo / "federation" / name)
    return folder


@pytest.mark.stress
@pytest.mark.timeout(180)
@pytest.mark.parametrize("block", RUN, ids=lambda block: f"{block.page.name}:{block.line}")
def test_a_block_runs_and_prints_what_the_page_shows(block, consortium):
    assert unlike(block.output, played(block, consortium)) == []


def test_the_tutorial_shows_what_its_commands_print():
    tutorial = [block for block in blocks(ROOT / "docs" / "tutorial.md") if block.mark.startswith("run")]
    assert len(tutorial) >= 6
    assert [block.line for block in tutorial if not block.output] == []


def test_the_sheets_of_the_guides_are_sheets(tmp_path):
    """The samplesheet that a page shows has columns of the schema alone."""
    schema = json.loads((ROOT / "modules" / "check_inputs" / "schema_input.json").read_text())
    (sheet,) = [
        block.text
        for block in blocks(ROOT / "docs" / "bioinformatician.md")
        if "patient,sample" in block.text
    ]
    header, *rows = [line.split(",") for line in sheet.splitlines()]
    assert set(header) <= set(schema["items"]["properties"])
    assert {len(row) for row in rows} == {len(header)}
