"""What Seqera Platform reads of the pipeline: the schema, tower.yml, a params file."""

from __future__ import annotations

import fnmatch
import json
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from conftest import ROOT
from cordon.files import read_json
from cordon.inputs.run_parameters import check_parameters, combination_problems, properties
from pipeline_lab import FEW_PATIENTS, nextflow, stub_site

SCHEMA = read_json(ROOT / "nextflow_schema.json")
# The parameters that have no file or folder behind them although their names sound so.
NO_PATHS = {"publish_dir_mode", "site"}


def test_the_schema_is_valid_and_every_parameter_is_told_whole():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"].endswith("draft/2020-12/schema")
    assert {entry["$ref"] for entry in SCHEMA["allOf"]} == {f"#/$defs/{name}" for name in SCHEMA["$defs"]}
    for group in SCHEMA["$defs"].values():
        assert all(group[key] for key in ("title", "description", "fa_icon", "properties"))
    for name, rule in properties(SCHEMA).items():
        for key in ("type", "description", "help_text", "fa_icon"):
            assert rule.get(key), f"{name} lacks {key}"
        assert rule["description"].endswith("."), name
        if "pattern" in rule:
            re.compile(rule["pattern"])
            assert rule["errorMessage"].startswith("is no "), name


def test_paths_say_that_they_are_paths_and_tables_are_offered_as_datasets():
    rules = properties(SCHEMA)
    paths = {name for name, rule in rules.items() if "path" in rule.get("format", "")}
    assert {"input", "sites", "reference", "outdir", "state_dir", "site_key", "site_config"} <= paths
    assert not paths & NO_PATHS
    for name in paths - {"outdir", "state_dir", "site_config", "transport_dir"}:
        assert rules[name].get("exists"), f"{name}: nothing says that it must be there"
    for name in ("input", "sites"):
        assert rules[name]["mimetype"] == "text/csv"
        assert (ROOT / rules[name]["schema"]).exists()


def test_only_expert_parameters_and_a_simulations_files_are_hidden():
    expert = SCHEMA["$defs"]["expert"]["properties"]
    hidden = {name for name, rule in properties(SCHEMA).items() if rule.get("hidden")}
    assert hidden == {*expert, "simulate_reference", "simulate_sites_vcf"}


def test_the_example_of_a_params_file_is_one():
    given = yaml.safe_load((ROOT / "assets" / "params.example.yaml").read_text())
    values, problems = check_parameters(given, SCHEMA)
    assert [*problems, *combination_problems(values)] == []
    assert values["aggregator_policy"] == "/data/cordon/policy.toml"


@pytest.mark.pipeline
@pytest.mark.timeout(600)
def test_every_report_that_the_platform_shows_is_published_and_no_name_is_told(tmp_path, monkeypatch):
    """By a run that plays the whole consortium, or by a site's whose aggregator is elsewhere. The latter
    reports to the platform, and so its names are private unasked."""
    whole = nextflow(tmp_path, "-stub", "--private_names", "true", *FEW_PATIENTS, profile="demo,local")
    assert whole.returncode == 0, whole.stdout
    for name in ("site.key", "ca.crt"):
        (tmp_path / name).touch()
    monkeypatch.setenv("NXF_PLUGINS_DIR", str(mute_plugin(tmp_path / "plugins")))
    joined = nextflow(
        tmp_path, "-stub", *stub_site(tmp_path), "--callers", "bcftools", "--aggregator", "host:9092",
        "--site_key", "site.key", "--aggregator_ca", "ca.crt", "--outdir", "joined",
        "-with-tower", "https://tower.hospital.example/api",
    )  # fmt: skip
    assert joined.returncode == 0, joined.stdout
    published = {
        str(path.relative_to(tmp_path)) for folder in ("results", "joined")
        for path in (tmp_path / folder).rglob("*") if path.is_file()
    }  # fmt: skip
    reports = yaml.safe_load((ROOT / "tower.yml").read_text())["reports"]
    for pattern, report in reports.items():
        assert report["display"]
        assert fnmatch.filter(published, pattern), f"{pattern}: nothing in {sorted(published)}"
    shown = {path for pattern in reports for path in fnmatch.filter(published, pattern)}
    for kind in ("report.html", "certificate.json", "ledger.jsonl", "timeline.html"):
        assert any(path.endswith(kind) for path in shown)
    # What stays with a site is not among them.
    stays = ("variants/", "calls/", "scored/", "audit.json", "private_names.csv")
    assert not [path for path in shown if any(name in path for name in stays)]
    for folder in ("results", "joined"):
        assert f"{folder}/pipeline_info/private_names.csv" in published
    told = [path.read_text() for path in (tmp_path / "work").rglob(".command.sh")]
    told += [
        (tmp_path / folder / "pipeline_info" / "trace.txt").read_text() for folder in ("results", "joined")
    ]
    assert len(told) > 50
    assert not re.findall(r"(?:north|south)-(?:\d|train|test)", "\n".join(told))


def mute_plugin(folder: Path) -> Path:
    """A folder of plugins with a double of nf-tower, which lets Nextflow start and sends nothing."""
    manifest = folder / "nf-tower-1.9.3" / "classes" / "META-INF" / "MANIFEST.MF"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("Manifest-Version: 1.0\nPlugin-Id: nf-tower\nPlugin-Version: 1.9.3\n")
    return folder


def test_the_manifest_invents_no_place_and_names_the_license():
    text = (ROOT / "nextflow.config").read_text()
    manifest = re.search(r"^manifest \{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE).group(1)
    stated = dict(re.findall(r"^    (\w+) = (.+)$", manifest, re.MULTILINE))
    assert {"name", "description", "version", "license", "contributors", "defaultBranch"} <= set(stated)
    assert "http" not in manifest
    assert json.loads(stated["license"].replace("'", '"')) == "Apache-2.0"
    assert "Apache License" in Path(ROOT / "LICENSE").read_text()
