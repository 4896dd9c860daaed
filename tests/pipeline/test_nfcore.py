"""nf-core's conventions: its own lint, --help, what is left in pipeline_info, citations."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from cordon.files import read_json
from cordon.inputs.run_parameters import properties
from pipeline_lab import environment, nextflow

NF_CORE = Path(sys.executable).with_name("nf-core")
SCHEMA = read_json(ROOT / "nextflow_schema.json")
HIDDEN = {name for name, rule in properties(SCHEMA).items() if rule.get("hidden")}
with_nf_core = pytest.mark.skipif(
    not NF_CORE.exists(), reason="nf-core tools are not installed: `make setup`"
)

pytestmark = pytest.mark.timeout(300)


def nf_core(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run nf-core's tools with the pipeline's Nextflow, without network."""
    return subprocess.run(
        [str(NF_CORE), "pipelines", *arguments],
        cwd=folder, env=environment() | {"COLUMNS": "200", "NO_COLOR": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def copied(folder: Path) -> Path:
    """The pipeline without what git ignores: nf-core's tools would look into the environment, too."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, check=True, text=True, capture_output=True).stdout.split():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for command in ("init -q", "add .", "-c user.name=x -c user.email=x commit -q -m x"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    return folder


@with_nf_core
@pytest.mark.pipeline
def test_nf_cores_lint_passes(tmp_path):
    """All its checks that .nf-core.yml does not except, and the two warnings that it tells of."""
    folder = copied(tmp_path / "cordon")
    run = nf_core("lint", "--dir", str(folder), "--json", str(tmp_path / "lint.json"))
    assert run.returncode == 0, run.stdout
    found = json.loads((tmp_path / "lint.json").read_text())
    assert found["tests_failed"] == []
    assert len(found["tests_pass"]) > 100
    warned = sorted(text for _, text in found["tests_warned"])
    assert len(warned) == 2, warned
    assert "manifest.version" in warned[0]
    assert "$id" in warned[1]


@with_nf_core
@pytest.mark.pipeline
def test_nf_cores_lint_finds_what_is_wrong(tmp_path):
    folder = copied(tmp_path)
    (folder / "CITATIONS.md").unlink()
    config = (folder / "nextflow.config").read_text()
    (folder / "nextflow.config").write_text(config.replace("test {", "tests {"))
    run = nf_core("lint", "--dir", str(folder), "--json", str(tmp_path / "lint.json"))
    assert run.returncode == 1
    failed = [text for _, text in json.loads((tmp_path / "lint.json").read_text())["tests_failed"]]
    assert len(failed) == 2, failed
    assert "CITATIONS.md" in failed[0]
    assert "does not contain configuration profile `test`" in failed[1]


@with_nf_core
@pytest.mark.stress
def test_nf_cores_schema_lint_passes_and_finds_what_is_wrong(tmp_path):
    good = nf_core("schema", "lint", str(ROOT / "nextflow_schema.json"))
    assert good.returncode == 0, good.stdout
    assert f"Pipeline schema looks valid (found {len(properties(SCHEMA))} params)" in good.stdout
    folder = copied(tmp_path)
    for spoil, said in (
        (lambda schema: schema["allOf"].pop(), "not included in schema `allOf`"),
        (lambda schema: schema["$defs"]["privacy"]["properties"]["epsilon"].update(default="much"), "much"),
    ):
        schema = json.loads((ROOT / "nextflow_schema.json").read_text())
        spoil(schema)
        (folder / "nextflow_schema.json").write_text(json.dumps(schema))
        bad = nf_core("schema", "lint", str(folder / "nextflow_schema.json"), folder=folder)
        assert bad.returncode == 1, bad.stdout
        assert said in " ".join(bad.stdout.split())


def test_no_exception_from_the_lint_is_stale():
    """A file that is excepted is not there, and every exception stands under a comment."""
    text = (ROOT / ".nf-core.yml").read_text()
    for name in yaml.safe_load(text)["lint"]["files_exist"]:
        assert not (ROOT / name).exists(), f"{name} is there: take its exception out of .nf-core.yml"
    lines = text.splitlines()
    switched_off = [number for number, line in enumerate(lines) if line.endswith(": false")]
    for number in switched_off:
        before = next(line for line in reversed(lines[:number]) if not line.endswith(": false"))
        assert before.lstrip().startswith("#"), lines[number]


def parameters_told(text: str) -> set[str]:
    return set(re.findall(r"^  --(\w+) ", text, re.MULTILINE))


@pytest.mark.pipeline
def test_help_tells_every_parameter_by_group_with_its_default_and_runs_nothing(tmp_path):
    run = nextflow(tmp_path, "--help")
    assert run.returncode == 0, run.stdout
    assert parameters_told(run.stdout) == set(properties(SCHEMA)) - HIDDEN
    for group in SCHEMA["$defs"].values():
        if set(group["properties"]) - HIDDEN:
            assert f"\n{group['title']}: {group['description']}\n" in run.stdout
    assert re.search(r"^  --epsilon +Budget over all runs\. \[8\]$", run.stdout, re.MULTILINE)
    rounds = r"^  --rounds +Federated rounds: 5 from a public start, 20 from nothing\.$"
    assert re.search(rounds, run.stdout, re.MULTILINE)
    assert re.search(r"^  --reference +[^\[]+$", run.stdout, re.MULTILINE)
    assert "Submitted process" not in run.stdout
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "cordon_state").exists()


# What main.nf does with --help, for several words in one start of Nextflow.
HELPING = """
include {{ help }} from '{root}/subworkflows/help'

workflow {{
    ['full', 'mechanism', 'mechanics'].each {{ what ->
        println("== ${{what}}")
        println(help(file('{root}/nextflow_schema.json'), what, params))
    }}
}}
"""


@pytest.mark.pipeline
def test_help_tells_the_expert_parameters_too_or_all_of_one(tmp_path):
    (tmp_path / "help.nf").write_text(HELPING.format(root=ROOT))
    run = nextflow(tmp_path, "-c", str(ROOT / "nextflow.config"), pipeline=tmp_path / "help.nf")
    assert run.returncode != 0
    full, one, unknown = re.split(r"^== \w+\n", run.stdout, flags=re.MULTILINE)[1:]
    assert parameters_told(full) == set(properties(SCHEMA))
    rule = properties(SCHEMA)["mechanism"]
    assert rule["description"] in one
    assert rule["help_text"] in one
    assert "One of: gaussian, laplace" in one
    assert "--help mechanics: is no parameter of this pipeline. --help full lists all." in unknown


@pytest.mark.pipeline
@pytest.mark.parametrize("name", ["pretrained", "contig_aliases"])
def test_a_file_that_is_missing_is_refused_before_anything_runs(tmp_path, name):
    run = nextflow(tmp_path, "-stub", f"--{name}", "absent.safetensors.tsv", profile="test,local")
    assert run.returncode != 0
    assert "absent.safetensors.tsv" in run.stdout
    assert "Submitted process" not in run.stdout


@pytest.mark.pipeline
def test_a_run_leaves_what_it_did_in_pipeline_info(tmp_path):
    run = nextflow(tmp_path, "-stub", "--epsilon", "3", "--outdir", "elsewhere", profile="test,local")
    assert run.returncode == 0, run.stdout
    folder = tmp_path / "elsewhere" / "pipeline_info"
    left = "timeline.html execution_report.html trace.txt dag.html params.json software_versions.yml"
    assert {path.name for path in folder.iterdir()} == set(left.split())
    given = json.loads((folder / "params.json").read_text())
    assert set(given) == set(properties(SCHEMA))
    assert (given["epsilon"], given["outdir"], given["simulate_sites"]) == (3, "elsewhere", 2)
    versions = yaml.safe_load((folder / "software_versions.yml").read_text())
    processes = {name.split(":")[-1] for name in versions}
    assert {
        "GATK4_HAPLOTYPECALLER",
        "BCFTOOLS_CALL",
        "AGGREGATE",
        "TRAIN_SITE",
        "SCORE_VARIANTS",
    } <= processes
    assert all(version for tools in versions.values() for version in tools.values())
    assert not (tmp_path / "results").exists()


def test_every_tool_that_a_process_names_is_cited():
    tools = {
        tool
        for module in (ROOT / "modules").rglob("main.nf")
        for block in re.findall(r"<<-END_VERSIONS.*?END_VERSIONS", module.read_text(), re.DOTALL)
        for tool in re.findall(r"^        ([\w-]+):", block, re.MULTILINE)
    }
    assert {"gatk4", "deepvariant", "bcftools", "flwr", "multiqc", "opacus", "torch"} <= tools
    named = {"gatk4": "GATK", "torch": "PyTorch", "cordon": "Cordon"}
    citations = (ROOT / "CITATIONS.md").read_text().lower()
    for tool in tools:
        assert named.get(tool, tool).lower() in citations, f"{tool} is not in CITATIONS.md"
