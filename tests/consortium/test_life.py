"""docs/consortium.md, from its first block to its last: operator and hospitals in folders of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from consortium import ROOT as PROJECT
from consortium import labelled_table
from cordon.federation.credentials import private_identity
from cordon.ledger.log import ChainedLog
from cordon.variants.table import write_table
from docs_lab import ROOT, blocks, played, unlike
from warm import Warm

PAGE = ROOT / "docs" / "consortium.md"
KEYS = {"OPERATOR": "heart/operator.key", "NORTH": "north/site.key", "SOUTH": "south/site.key"}
KEYS |= {"WEST": "west/site.key"}

pytestmark = [pytest.mark.federation, pytest.mark.timeout(300)]


def command(folder: Path, log: Path, *arguments: str) -> Warm:
    return Warm([*arguments], cwd=folder, log=log, environment={"HOME": str(folder), "PATH": "/usr/bin:/bin"})


def run(folder: Path) -> None:
    """The run that the page tells of: the operator's command, and of each site's pipeline its training."""
    aggregator = command(folder, folder / "log", "-m", "cordon.cli", "aggregator", "run", "heart")
    sites = {}
    for number, name in enumerate(("north", "south")):
        given = yaml.safe_load((folder / name / "run.yml").read_text())
        write_table(labelled_table(name, number), folder / name / "rows.parquet")
        arguments = [
            "--site", name, "--sites", given["sites"], "--variants", "rows.parquet",
            "--address", given["aggregator"], "--certificate", given["aggregator_ca"],
            "--key", given["site_key"], "--epsilon", str(given["epsilon"]),
            "--run_epsilon", str(given["run_epsilon"]), "--delta", str(given["delta"]),
            "--accountant", given["accountant"], "--plan", given["plan"],
            "--privacy_unit", given["privacy_unit"], "--state", f"{given['state_dir']}/sites",
            "--join_deadline", "60", "--walltime", "36000", "--output", "model.safetensors",
            "--status", "spent.json",
        ]  # fmt: skip
        # At a place of its own, as each hospital's task is.
        place = folder / name
        sites[name] = command(place, folder / "log", str(PROJECT / "bin" / "train_site.py"), *arguments)
    try:
        for process in sites.values():
            assert process.wait(timeout=120) == 0, (folder / "log").read_text()[-4000:]
        assert aggregator.wait(timeout=60) == 0, (folder / "log").read_text()[-4000:]
    finally:
        for process in (*sites.values(), aggregator):
            process.terminate()


def test_every_block_does_what_the_page_shows(tmp_path, monkeypatch):
    for variable, path in KEYS.items():
        monkeypatch.setenv(variable, f"of {path}")
    steps = [block for block in blocks(PAGE) if block.language == "bash"]
    assert sum(block.mark == "consortium" for block in steps) >= 11
    for block in steps:
        for variable, path in KEYS.items():
            if (tmp_path / path).exists():
                monkeypatch.setenv(variable, private_identity(tmp_path / path))
        if block.mark == "consortium":
            assert unlike(block.output, played(block, tmp_path)) == [], f"line {block.line}"
        elif "cordon aggregator run" in block.text:
            run(tmp_path)
            (done,) = (tmp_path / "heart" / "runs").iterdir()
            record = json.loads((done / "federation.json").read_text())
            assert [site["status"] for site in record["sites"]] == ["finished", "finished"]
            plan = json.loads((tmp_path / "north" / "plan.json").read_text())
            assert record["plan"] == plan | {"run": done.name}
            assert len(plan["study"]) == 64
            assert (done / "model.safetensors").read_bytes() == (
                tmp_path / "north" / "model.safetensors"
            ).read_bytes()
    rows = list(ChainedLog(tmp_path / "heart" / "state" / "ledger.sqlite"))
    assert [row["site"] for row in rows if row["kind"] == "enrolled"] == ["north", "south", "west"]
    # The second plan counts the first run, which left room for two more of its cost.
    first, second = (json.loads((tmp_path / name / "plan.json").read_text()) for name in ("south", "north"))
    assert second["study"] == first["study"]
    assert [path.name for path in tmp_path.rglob("*.key") if path.stat().st_mode & 0o077] == []


@pytest.fixture(scope="module")
def signed(tmp_path_factory) -> Path:
    """The page as far as the kit."""
    folder = tmp_path_factory.mktemp("signed")
    with pytest.MonkeyPatch.context() as patch:
        for block in blocks(PAGE):
            if block.mark == "consortium":
                for variable, path in KEYS.items():
                    if (folder / path).exists():
                        patch.setenv(variable, private_identity(folder / path))
                played(block, folder)
                if "consortium kit" in block.text:
                    return folder
    raise AssertionError("the page signs no kit")


OVER = "sed -i s/2031/2019/ heart/study.toml; cordon plan heart; cordon consortium kit heart --address a.b:1"


@pytest.mark.parametrize(
    ("between", "said"),
    [
        ("cordon plan heart --rounds 3", "is not the plan that sites have"),
        (
            'cordon consortium approve heart west/west.request --fingerprint "$WEST"',
            "sites or their keys were changed",
        ),
        ("rm heart/heart.kit", "sites have no kit yet"),
        (OVER, "was over on 2019-12-31"),
    ],
)
def test_what_sites_have_not_agreed_to_is_not_started(signed, tmp_path, between, said):
    """A stale plan at one of two sites once burnt half of the other's budget."""
    ready = tmp_path / "copy"
    shutil.copytree(signed, ready)
    path = f"{ROOT}/.venv/bin:/usr/bin:/bin"
    given = {"PATH": path, "HOME": str(ready), "WEST": private_identity(ready / "west" / "site.key")}
    script = f"{between}; cordon aggregator run heart"
    run = subprocess.run(["bash", "-c", script], cwd=ready, env=given, text=True, capture_output=True)
    assert run.returncode == 2, run.stdout + run.stderr
    assert said in run.stderr
    assert not (ready / "heart" / "runs").exists()
