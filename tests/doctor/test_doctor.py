"""`cordon doctor`: each thing that would stop a first run is found, with its remedy."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from conftest import ROOT
from cordon.attestation.binding import report_data
from cordon.attestation.emulator import Emulator
from cordon.cli import main
from cordon.doctor import network
from cordon.doctor.finding import Finding
from cordon.doctor.programs import ENGINES, SCHEDULERS
from cordon.federation.credentials import enrol
from cordon.federation.gate.limits import Bounds
from cordon.federation.plan import Site, identity, read_enrolment
from pipeline_lab import environment
from served_gate import ServedGate


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that alone is on PATH, with a Java and a Nextflow of the right age."""
    folder = tmp_path / "programs"
    folder.mkdir()
    program(folder, "java", "echo 'openjdk version \"17.0.9\"' >&2")
    program(folder, "nextflow", "echo '      version 24.10.0 build 5928'")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def told(*options: object) -> dict[str, tuple[str, str, str]]:
    """What `cordon doctor --json` found: status, what, remedy; its exit status must fit."""
    result = CliRunner().invoke(main, ["doctor", "--json", *map(str, options)], catch_exceptions=False)
    said = json.loads(result.output)
    assert result.exit_code == (0 if said["ready"] else 2)
    assert said["ready"] == all(finding["status"] != "failed" for finding in said["findings"])
    return {
        finding["what"]: (finding["status"], finding["found"], finding["remedy"])
        for finding in said["findings"]
    }


def status(*options: object) -> dict[str, str]:
    return {what: found[0] for what, found in told(*options).items()}


@pytest.mark.stress
def test_what_make_set_up_is_found(monkeypatch):
    monkeypatch.setenv("PATH", environment()["PATH"])
    assert status("--profile", "local") == {"Java": "ok", "Nextflow": "ok", "engine local": "ok"}


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("java", "echo 'openjdk version \"11.0.2\"' >&2"),
        ("java", "exit 1"),
        ("nextflow", "echo 'version 23.10.1 build 1'"),
        ("nextflow", "echo 'who knows'"),
    ],
)
def test_an_old_or_broken_program_is_found(programs, name, script):
    program(programs, name, script)
    what = {"java": "Java", "nextflow": "Nextflow"}[name]
    found, _, remedy = told()[what]
    assert found == "failed"
    assert "nstall" in remedy


def test_no_engine_is_worth_a_word(programs):
    assert status("--profile", "slurm,gpu")["engine"] == "warning"


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_must_be_there_and_answer(programs, engine):
    name = f"engine {engine}"
    assert status("--profile", engine)[name] == "failed"
    program(programs, ENGINES[engine][0], "exit 1")
    assert status("--profile", engine)[name] == "failed"
    program(programs, ENGINES[engine][0], "echo 4.2")
    assert told("--profile", engine)[name][:2] == ("ok", "4.2")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_scheduler_must_be_there_and_answer(programs, scheduler):
    name = f"scheduler {scheduler}"
    assert status("--profile", f"{scheduler},local")[name] == "failed"
    program(programs, SCHEDULERS[scheduler][0], "echo here")
    for submit in ("sbatch", "qsub", "bsub"):
        program(programs, submit, "")
    assert status("--profile", f"{scheduler},local")[name] == "ok"


def test_a_reference_that_is_none_is_found(programs, lab, tmp_path):
    assert status("--reference", lab.reference)["reference"] == "ok"
    (tmp_path / "x.fa").write_text("no genome")
    assert status("--reference", tmp_path / "x.fa")["reference"] == "failed"
    assert status("--reference", tmp_path / "missing.fa")["reference"] == "failed"


def test_a_state_folder_must_take_a_ledger_and_keeps_nothing_of_the_trial(programs, tmp_path):
    assert status("--state_dir", tmp_path / "state")["ledger"] == "ok"
    assert list((tmp_path / "state").iterdir()) == []
    (tmp_path / "state").chmod(0o777)
    assert told("--state_dir", tmp_path / "state")["ledger"][2].startswith("chmod go-w")
    (tmp_path / "file").touch()
    assert status("--state_dir", tmp_path / "file" / "state")["ledger"] == "failed"


def test_a_key_must_be_a_sites_and_private(programs, tmp_path):
    enrol([Site("north", 3, 1.0)], "127.0.0.1", state=tmp_path / "keys", outdir=tmp_path / "run")
    key = tmp_path / "keys" / "north.key"
    (site,) = read_enrolment(tmp_path / "run" / "aggregator" / "enrolment.json")
    found, said, _ = told("--site_key", key)["site's key"]
    assert found == "ok"
    assert identity(site)[:16] in said
    key.chmod(0o644)
    assert status("--site_key", key)["site's key"] == "failed"
    key.write_text("no key")
    key.chmod(0o600)
    assert status("--site_key", key)["site's key"] == "failed"


def test_the_aggregator_must_answer_with_the_certificate_that_is_trusted(programs, tmp_path):
    with ServedGate(Bounds()) as gate:
        (tmp_path / "ca.crt").write_bytes(gate.identity.certificate)
        address = f"127.0.0.1:{gate.port}"
        given = ["--aggregator", address, "--aggregator_ca", tmp_path / "ca.crt"]
        assert {name: status(*given)[name] for name in ("proxy", "aggregator", "clock")} == {
            "proxy": "ok", "aggregator": "ok", "clock": "ok",
        }  # fmt: skip
        assert gate.upstream.seen == []
        with ServedGate(Bounds()) as other:
            assert status("--aggregator", f"127.0.0.1:{other.port}", *given[2:])["aggregator"] == "failed"
        assert status("--aggregator", address)["aggregator"] == "failed"
    assert status(*given)["aggregator"] == "failed"
    assert status("--aggregator", "nowhere", *given[2:])["aggregator"] == "failed"


@pytest.mark.stress
def test_the_aggregator_must_satisfy_the_policy(programs, tmp_path):
    emulator = Emulator.at(tmp_path / "emulator")
    emulator.write_policy(tmp_path / "policy.toml")
    gate = ServedGate(Bounds(), evidence=lambda nonce: "{}")
    gate._options["evidence"] = lambda nonce: emulator.collect(
        report_data(gate.identity.spki, nonce)
    ).to_json()
    with gate:
        given = ["--aggregator", f"127.0.0.1:{gate.port}", "--aggregator_policy", tmp_path / "policy.toml"]
        found = told(*given)
        assert found["attestation"][0] == "warning"
        assert "TEST ONLY" in found["attestation"][1]
        assert found["aggregator"][0] == found["clock"][0] == "ok"
        Emulator.at(tmp_path / "another").write_policy(tmp_path / "policy.toml")
        found = told(*given)
        assert found["attestation"][0] == "failed"
        assert "aggregator" not in found


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [(0, "ok"), (1, "ok"), (4, "warning"), (30, "failed"), (-30, "ok"), (-90, "warning"), (-400, "failed")],
)
def test_a_clock_is_measured_by_what_the_aggregator_allows(ahead, expected):
    assert network._clock(ahead).status == expected


def test_people_read_a_line_a_finding_and_what_to_do(programs):
    os.remove(programs / "java")
    result = CliRunner().invoke(main, ["doctor", "--profile", "local"], catch_exceptions=False)
    assert "✗ Java: java is not on PATH" in result.output
    assert "\n    Install a JDK" in result.output
    assert "would stop a run" in result.output
    assert result.exit_code == 2


NODES = "short*|idle|3|4:00:00|up\nlong|mixed|2|7-00:00:00|up\nbroken|drained|1|infinite|up"


@pytest.mark.parametrize(
    ("sinfo", "written", "expected"),
    [
        ("all|idle|4|infinite|up", "", {"nodes": ("ok", "4 idle")}),
        ("all|down*|2|infinite|up\\nall|drained|1|infinite|up", "", {"nodes": ("failed", "2 down*")}),
        ("all|idle|2|infinite|down", "", {"nodes": ("failed", "2 in all, which is down")}),
        ("all|idle*|2|infinite|up", "", {"nodes": ("failed", "2 idle*")}),
        (NODES, "queue = 'long'", {"nodes": ("warning", "1 drained"), "queue long": ("ok", "takes jobs")}),
        (NODES, 'queue = "short"', {"queue short": ("failed", "jobs of 4 hours at most")}),
        (NODES, "queue = 'short'\nresourceLimits = [time: 4.h]", {"queue short": ("ok", "takes jobs")}),
        (NODES, "queue = 'short'\nresourceLimits = [cpus: 4]", {"queue short": ("failed", "4 hours")}),
        (NODES, "queue = 'short'\nresourceLimits = [time: 168.h]", {"queue short": ("failed", "4 hours")}),
        (NODES, "queue = 'short'\nresourceLimits = [cpus: 4, time: '90m']", {"queue short": ("ok", "")}),
        (NODES, "queue = { 'short' }", {"queue short": ("failed", "jobs of 4 hours at most")}),
        (NODES, "clusterOptions = '-p nowhere'", {"queue nowhere": ("failed", "is no partition")}),
        (NODES, "clusterOptions = '--partition=nowhere'", {"queue nowhere": ("failed", "is no partition")}),
        (NODES, "", {"queue short": ("failed", "jobs of 4 hours at most")}),
        (NODES, "// queue = 'gpu'\n/* queue = 'gpu' */", {"nodes": ("warning", "1 drained")}),
        (NODES, "queue = 'gpu'", {"queue gpu": ("failed", "is no partition of this Slurm")}),
        (NODES, "queue = 'broken,long'", {"queue broken": ("failed", "no node"), "queue long": ("ok", "")}),
        (NODES, "cluster_options = '--account=lab'", {"account lab": ("failed", "none of Slurm's")}),
        (NODES, "cluster_options = '-A ours'", {}),
    ],
)
def test_a_slurm_that_takes_no_job_of_the_sites_is_found(programs, tmp_path, sinfo, written, expected):
    program(programs, "sinfo", "printf '" + sinfo.replace("\n", "\\n") + "\\n'")
    program(programs, "sbatch", "true")
    program(programs, "sacctmgr", "echo ours")
    (tmp_path / "site.config").write_text(written)
    found = told("--profile", "slurm", "--site_config", tmp_path / "site.config")
    for what, (status, words) in expected.items():
        assert found[what][0] == status, found
        assert words in found[what][1]
    assert ("account lab" in found) == ("lab" in written)
    assert "account ours" not in found


def test_a_sites_file_that_is_no_text_is_named(programs, tmp_path):
    (tmp_path / "site.config").write_bytes("// für uns\n".encode("latin-1"))
    found = told("--profile", "local", "--site_config", tmp_path / "site.config")
    assert found["site_config"][0] == "failed"
    assert "cannot be read" in found["site_config"][1]
    assert told("--profile", "local", "--site_config", "http://house/a.config")["site_config"][0] == "warning"


@pytest.mark.parametrize(
    ("written", "what", "words"),
    [
        ("env.HTTPS_PROXY = 'http://me:secret@proxy:3128'", "site_config", "holds a password"),
        ("process.executor = 'slurm'", "site_config", "sets process.executor to slurm alone"),
        ("env.HTTPS_PROXY = 'http://proxy:3128'", "Seqera Platform", "public cloud"),
        ("tower.endpoint = 'https://tower.hospital/api'", None, ""),
        ("process.executor = 'slurm'\nparams.scheduler = 'slurm'\ntower { endpoint = 'x' }", None, ""),
    ],
)
def test_what_a_sites_file_gives_away_is_found(programs, tmp_path, monkeypatch, written, what, words):
    monkeypatch.setenv("TOWER_ACCESS_TOKEN", "token")
    (tmp_path / "site.config").write_text(written)
    found = told("--site_config", tmp_path / "site.config")
    faults = {name for name in found if name in ("site_config", "Seqera Platform")}
    assert what in faults if what else not faults
    if what:
        assert words in found[what][1]
    monkeypatch.delenv("TOWER_ACCESS_TOKEN")
    assert "Seqera Platform" not in told("--site_config", tmp_path / "site.config")


def test_a_profile_that_is_misspelt_would_stop_a_run(tmp_path):
    found = told("--profile", "lokal")["profile"]
    assert found == ("failed", "lokal: no profile of that name", "Is it local?")
    text = (ROOT / "conf" / "profiles.config").read_text()
    # Every profile of the pipeline's is known, and one of the site's own.
    for name in (*re.findall(r"^    '?([\w-]+)'? {", text, re.MULTILINE), "test"):
        assert "profile" not in {found.what for found in programs_of(name) if found.status == "failed"}, name
    assert not [f for f in programs_of("ours", "profiles {\n  ours {\n") if f.what == "profile"]


def programs_of(profile: str, written: str = "") -> list[Finding]:
    from cordon.doctor import programs

    return list(programs.programs(profile, written))
