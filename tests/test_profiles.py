"""Profiles: each resolves, they combine in any order, a site comes first, contradictions are told."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from test_pipeline import ROOT, environment, nextflow, stub_site

ENGINES = ("local", "docker", "podman", "singularity", "apptainer", "charliecloud")
SCHEDULERS = ("slurm", "sge", "lsf", "pbspro", "awsbatch", "k8s", "google-batch")
OTHERS = ("gpu", "demo", "test", "example")

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(600)]


def settings(profile: str, *options: str) -> dict[str, str]:
    """What the configuration says under ``profile``, by name."""
    run = subprocess.run(
        ["nextflow", *options, "config", "-flat", "-profile", profile, str(ROOT)],
        env=environment(), text=True, capture_output=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    return dict(line.split(" = ", 1) for line in run.stdout.splitlines() if " = " in line and line[0] != " ")


def enabled(found: dict[str, str]) -> set[str]:
    """The engines that a configuration turns on."""
    return {engine for engine in ENGINES if found.get(f"{engine}.enabled") == "true"}


def forks_of(found: dict[str, str]) -> list[int]:
    """How often a process may run at once, by default and by label."""
    forks = [int(value) for name, value in found.items() if name.endswith(".maxForks")]
    assert len(forks) == 5
    return forks


def test_every_profile_is_known_here():
    files = (ROOT / "modules" / "profiles.config", ROOT / "nextflow.config")
    text = "".join(
        re.search(r"^profiles \{.*?^\}", path.read_text(), re.DOTALL | re.MULTILINE)[0] for path in files
    )
    defined = {name.strip("'") for name in re.findall(r"^    ([\w'-]+) \{$", text, re.MULTILINE)}
    assert defined == {*ENGINES, *SCHEDULERS, *OTHERS}


def test_no_selector_of_a_profile_takes_the_place_of_a_process_own_settings():
    """A profile's selector of the same words drops what modules.config has, publishDir and all."""
    selectors = re.compile(r"withName: '([^']+)'")
    own = selectors.findall((ROOT / "modules" / "modules.config").read_text())
    profiles = "".join((ROOT / path).read_text() for path in ("modules/profiles.config", "nextflow.config"))
    assert len(own) > 10
    assert not set(own) & set(selectors.findall(profiles))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_alone_runs_on_this_machine_within_its_limits(engine):
    found = settings(engine)
    assert enabled(found) == ({engine} - {"local"})
    assert "process.executor" not in found
    most = max(int(found["params.federation_slots"]), os.cpu_count() or 1)
    assert all(0 < forks <= most for forks in forks_of(found))
    assert "cpus" in found["process.resourceLimits"]
    # The executor's own count of what is free loses some: a run waited for ever for memory that nobody held.
    assert found["executor.$local.cpus"] == "1000000"
    assert found["executor.$local.memory"] == "'1 EB'"


@pytest.mark.parametrize("user", [0, 65534], ids=["root", "another user"])
def test_containers_run_as_who_started_them_and_a_rootless_podman_knows_who_that_is(user):
    """A container that runs as anyone else cannot write into its task's folder."""
    if os.geteuid() not in (0, user):
        pytest.skip("to become another user needs root")
    as_user = {} if os.geteuid() == user else {"user": user, "group": user}
    for engine, told in (("docker", []), ("podman", ["--no-healthcheck"])):
        options = settings(engine)[f"{engine}.runOptions"].strip("'")
        # Nextflow puts them into the task's bash as they are.
        run = subprocess.run(
            ["bash", "-c", f"echo {options}"], text=True, capture_output=True, check=True, **as_user
        )
        mapped = ["--userns=keep-id"] if engine == "podman" and user else []
        assert run.stdout.split() == [*mapped, "-u", f"{user}:{user}", *told]


@pytest.mark.parametrize(("scheduler", "engine"), [*zip(SCHEDULERS, itertools.cycle(ENGINES), strict=False)])
def test_a_scheduler_joins_any_engine_and_bounds_nothing_by_this_machine(scheduler, engine):
    found = settings(f"{scheduler},{engine}")
    assert enabled(found) == ({engine} - {"local"})
    assert found["process.executor"] == f"'{scheduler}'"
    assert set(forks_of(found)) == {0}
    assert found["process.resourceLimits"] == "[]"
    assert found["params.federation_slots"] == "null"


def test_the_order_of_profiles_does_not_matter():
    found = settings("slurm,apptainer,gpu,test,example")
    assert settings("example,test,gpu,apptainer,slurm") == found
    assert (
        found["process.'withName:TRAIN_SITE|AUDIT_MODEL|CALIBRATE_SCORES|SCORE_VARIANTS'.accelerator"] == "1"
    )
    assert found["process.queue"] == "'short'"
    assert found["process.resourceLimits"] == "[cpus:32, memory:'256 GB', time:'1d']"


def test_a_sites_own_file_comes_before_ours(tmp_path):
    """It takes the tasks back from Slurm, which is not there, and says where results go."""
    (tmp_path / "hospital.config").write_text("process.executor = 'local'\nparams.outdir = 'elsewhere'\n")
    given = ["-stub", "--callers", "bcftools", *stub_site(tmp_path), "--site_config", "hospital.config"]
    run = nextflow(tmp_path, *given, profile="slurm,local")
    assert run.returncode == 0, run.stdout
    assert (tmp_path / "elsewhere" / "report.html").exists()
    missing = nextflow(tmp_path, *given[:-1], "nowhere.config", profile="slurm,local")
    assert missing.returncode != 0
    assert "nowhere.config" in missing.stdout


def test_a_sites_own_file_may_be_at_an_address(tmp_path):
    (tmp_path / "hospital.config").write_text("params.input = 'told_by_the_address.csv'\n")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        run = nextflow(tmp_path, "--site_config", f"{address}/hospital.config")
        assert run.returncode != 0
        assert "told_by_the_address.csv" in run.stdout
        missing = nextflow(tmp_path, "--site_config", f"{address}/nowhere.config")
        assert missing.returncode != 0
        assert f"{address}/nowhere.config" in missing.stdout
        server.shutdown()


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ("docker,singularity", "Choose either one of: docker, singularity"),  # Nextflow's own words
        ("local,docker", "local and docker contradict each other. Choose one of the engines"),
        ("slurm,local,lsf", "slurm and lsf contradict each other. Choose one of the schedulers"),
        ("slrum,docker", "Unknown configuration profile: 'slrum'"),
    ],
)
def test_contradictory_and_unknown_profiles_are_refused_before_any_task(tmp_path: Path, profile, said):
    run = nextflow(tmp_path, profile=profile)
    assert run.returncode != 0
    assert said in run.stdout
    assert "Submitted process" not in run.stdout
