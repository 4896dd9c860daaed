"""Profiles: each resolves, they combine in any order, a site comes first, contradictions are told."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pipeline_lab import LABELS, RESOURCES, ROOT, environment, nextflow, stub_site

ENGINES = ("local", "docker", "podman", "singularity", "apptainer", "charliecloud")
GRIDS = ("slurm", "sge", "lsf", "pbspro")
CLOUDS = ("awsbatch", "k8s", "google-batch")
SCHEDULERS = (*GRIDS, *CLOUDS)
OTHERS = ("gpu", "demo", "test", "example")

# Where a process' results are published, below --outdir.
PUBLISHED = {
    "AGGREGATE": [("/federation", "*.{json,jsonl}")],
    "AUDIT_MODEL": [("/federation", "*.{json,safetensors}")],
    "BCFTOOLS_CALL": [("/calls", "*.vcf.gz*")],
    "CHECK_INPUTS": [("/pipeline_info", "private_names.csv")],
    "DEEPVARIANT": [("/calls", "*.vcf.gz*")],
    "DESCRIBE_CALLS": [("", "callset.json")],
    "EVALUATE_SCORES": [("", "evaluation.json")],
    "GATHER_CALLS": [("/calls", "*.vcf.gz*")],
    "GATK4_GENOTYPEGVCFS": [("/calls", "*.vcf.gz*")],
    "GATK4_HAPLOTYPECALLER": [("/calls", "*.vcf.gz*")],
    "LABEL_VARIANTS": [("/variants", "*.parquet")],
    "MULTIQC": [("/multiqc", "multiqc_report.html")],
    "NORMALISE_READS": [("/reads", "*.reads.json")],
    "NORMALISE_RESOURCE": [("/calls", "*.summary.json")],
    "NORMALISE_VARIANTS": [("/calls", "*.summary.json")],
    "REPORT": [("", "*report.html"), ("/pipeline_info", "software_versions.yml")],
    "SAMPLESHEET_FROM_SAREK": [("/pipeline_info", "samplesheet.csv")],
    "SCORE_VARIANTS": [("/scored", "*.{vcf.gz,vcf.gz.tbi}")],
    "TRAIN_SITE": [("/federation/sites", "*.json")],
}
# What a process is told by `ext`.
TOLD = {
    "AGGREGATE": {"args", "folders", "network"},
    "AUDIT_MODEL": {"args", "folders"},
    "CALIBRATE_SCORES": {"args", "folders"},
    "CHECK_INPUTS": {"args", "decided", "folders"},
    "ENCODE_VARIANTS": {"args"},
    "GATK4_GENOTYPEGVCFS": {"args"},
    "GATK4_HAPLOTYPECALLER": {"args"},
    "LABEL_VARIANTS": {"args", "folders"},
    "NORMALISE_READS": {"folders"},
    "NORMALISE_RESOURCE": {"args"},
    "NORMALISE_VARIANTS": {"folders"},
    "PLAN_RUN": {"args", "folders", "network"},
    "SAMPLESHEET_FROM_SAREK": {"args", "folders"},
    "SCORE_VARIANTS": {"args"},
    "SPLIT_INTERVALS": {"args"},
    "TRAIN_SITE": {"args", "folders", "network"},
}
MADE_UP = {"demo", "test"}
# Bytes of this machine.
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

# Profiles that are given together: each engine, each scheduler, a grid and a cloud with each of the others.
COMBINATIONS = [
    *ENGINES,
    *map(",".join, zip(SCHEDULERS, itertools.cycle(ENGINES), strict=False)),
    *(f"{grid},apptainer,gpu" for grid in ("sge", "lsf", "pbspro")),
    "slurm,docker",
    *(f"{scheduler},singularity,{other}" for scheduler in ("slurm", "k8s") for other in OTHERS),
    *(f"local,{other}" for other in OTHERS),
    "slurm,apptainer,gpu,test,example",
    "example,test,gpu,apptainer,slurm",
]  # fmt: skip

# And with a site's own file.
WITH_A_SITE = ["slurm,docker", "local,test", "k8s,singularity,gpu"]

Settings = dict[str, Any]

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(600)]


def defined() -> dict[str, list[str]]:
    """The labels of every process, by its name, as the modules have them."""
    found = {}
    for path in (ROOT / "modules").rglob("main.nf"):
        text = path.read_text()
        name = re.search(r"^process (\w+)", text, re.MULTILINE)[1]
        found[name] = re.findall(r"^    label '(\w+)'", text, re.MULTILINE)
    return found


def settings(folder: Path, configurations: dict[str, dict[str, Any]]) -> dict[str, dict[str, Settings]]:
    """What Nextflow gives each process under each of ``configurations`` (tests/nextflow/Settings.groovy)."""
    asked = {
        "project": str(ROOT), "launch": str(folder), "processes": defined(), "configurations": configurations,
    }  # fmt: skip
    (folder / "asked.json").write_text(json.dumps(asked))
    program = ROOT / "tests" / "nextflow" / "Settings.groovy"
    command = ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{ROOT}/.tools/nextflow/*", "groovy.ui.GroovyMain"]
    run = subprocess.run(
        [*command, program, folder / "asked.json", folder / "found.json"],
        cwd=folder, env=environment(), text=True, capture_output=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads((folder / "found.json").read_text())


def written_by_a_site() -> str:
    """A site's file with a selector for every label and process, and with those of Cordon's own words."""
    lines = [f"withLabel: '{label}' {{ clusterOptions = 'of {label}' }}" for label in RESOURCES]
    lines += [f"withName: '{name}' {{ ext.note = 'of {name}'\nmachineType = 'm-{name}' }}" for name in LABELS]
    lines += ["withName: '.*:DEEPVARIANT' { disk = 7.GB }", "withName: 'GATK4_.*' { scratch = '/fast' }"]
    lines += [f"withName: '{names}' {{ beforeScript = 'module load site' }}" for names in joint_selectors()]
    return "process {\n" + "\n".join(lines) + "\nmaxForks = 3\npenv = 'mpi'\n}\nparams.outdir = 'elsewhere'\n"


def joint_selectors() -> set[str]:
    """Cordon's selectors of more than one process."""
    texts = (path.read_text() for path in (ROOT / "conf").glob("*.config"))
    return set(re.findall(r"withName: '([^']+\|[^']+)'", "".join(texts)))


@pytest.fixture(scope="module")
def combined(tmp_path_factory) -> dict[str, dict[str, Settings]]:
    """What each process gets under each of COMBINATIONS, with a site's file too; "" is the whole of it."""
    folder = tmp_path_factory.mktemp("profiles")
    (folder / "site.config").write_text(written_by_a_site())
    asked: dict[str, dict[str, Any]] = {profile: {"profile": profile} for profile in COMBINATIONS}
    for profile in WITH_A_SITE:
        asked[f"{profile} --site_config"] = {"profile": profile, "parameters": {"site_config": "site.config"}}
        asked[f"{profile} -c"] = {"profile": profile, "files": [str(folder / "site.config")]}
    words = {"cluster_options": "-A lab", "gpu_options": "--gpus=a100:1"}
    asked["slurm,singularity,gpu with words of the site's"] = {
        "profile": "slurm,singularity,gpu", "parameters": words,
    }  # fmt: skip
    return settings(folder, asked)


def enabled(found: Settings) -> set[str]:
    """The engines that a configuration turns on."""
    return {engine for engine in ENGINES if found.get(engine, {}).get("enabled")}


def memory(text: str) -> int:
    """Bytes."""
    number, unit = text.split()
    return int(float(number) * 1024 ** ("B", "KB", "MB", "GB", "TB").index(unit))


def hours(text: str) -> float:
    return sum(float(part[:-1]) * {"d": 24, "h": 1, "m": 1 / 60}[part[-1]] for part in text.split())


def test_every_profile_and_process_is_known_here():
    files = (ROOT / "conf" / "profiles.config", ROOT / "nextflow.config")
    text = "".join(
        re.search(r"^profiles \{.*?^\}", path.read_text(), re.DOTALL | re.MULTILINE)[0] for path in files
    )
    known = {name.strip("'") for name in re.findall(r"^    ([\w'-]+) \{$", text, re.MULTILINE)}
    assert known == {*ENGINES, *SCHEDULERS, *OTHERS}
    assert {name: [label] for name, label in LABELS.items()} == defined()


@pytest.mark.parametrize("profile", COMBINATIONS)
def test_every_process_gets_what_it_asks_for_and_keeps_what_it_is_told(combined, profile):
    """A cluster's jobs once got 1 core, 2 GB and an hour: a profile's selector took another one's place."""
    chosen = {*profile.split(",")}
    limits = {"cpus": 10**6, "memory": 2**60, "time": 10**6}
    if not chosen & {*SCHEDULERS}:
        limits |= {"cpus": os.cpu_count(), "memory": MEMORY}
    if "example" in chosen:
        limits = {"cpus": 32, "memory": 256 * 1024**3, "time": 24}
    for name, label in LABELS.items():
        found = combined[profile][name]
        cpus, sizes, times = RESOURCES[label]
        # What a made-up patient has is called on one core.
        cpus = 1 if name == "GATK4_HAPLOTYPECALLER" and chosen & MADE_UP else cpus
        longest = 168 if label == "process_federation" and "example" in chosen else limits["time"]
        assert found["cpus"] == [min(cpus, limits["cpus"])] * 3, name
        asked = [min(size * 1024**3, limits["memory"]) for size in sizes]
        assert [memory(size) for size in found["memory"]] == pytest.approx(asked, rel=5e-3), name
        assert [hours(time) for time in found["time"]] == [min(time, longest) for time in times], name
        retried = {"AGGREGATE": 5, "TRAIN_SITE": "{ task.exitStatus == 75 ? 10000 : 10 }"}.get(name, 2)
        assert found["maxRetries"] == retried, name
        again = (
            "[75, 137, 140, 143, 247, 2147483647]"
            if name == "TRAIN_SITE"
            else "[137, 140, 143, 247, 2147483647]"
        )
        assert f"task.exitStatus in {again} ? 'retry' : 'terminate'" in found["errorStrategy"], name
        assert found["shell"] == ["/bin/bash", "-euo", "pipefail"], name
        published = [
            (place["path"].replace("{ params.outdir }", '{ "${params.outdir}" }'), place["pattern"])
            for place in found.get("publishDir", [])
        ]
        expected = [(f'{{ "${{params.outdir}}{below}" }}', files) for below, files in PUBLISHED.get(name, [])]
        assert published == expected, name
        assert all(place["mode"] == "copy" for place in found.get("publishDir", [])), name
        told = TOLD.get(name, set())
        if name == "GATK4_HAPLOTYPECALLER" and chosen & MADE_UP:
            told = told | {"java_options"}
        assert {*found.get("ext", {})} == told, name
        if name == "CHECK_INPUTS":
            # By which the files were chosen: a later one can set them, and would change nothing.
            scheduler = next(iter({*chosen} & {*SCHEDULERS}), "")
            gpu, sites = "true" if "gpu" in chosen else "", {"demo": 3, "test": 2}
            simulated = next((sites[name] for name in chosen if name in sites), 0)
            wanted = f"scheduler={scheduler},gpu={gpu},simulate_sites={simulated}"
            assert found["ext"]["decided"] == wanted
        gpus = {"DEEPVARIANT", "TRAIN_SITE", "AUDIT_MODEL", "CALIBRATE_SCORES", "SCORE_VARIANTS"}
        gpu = "gpu" in chosen and name in gpus
        assert found.get("accelerator") == (1 if gpu else None), name
        # Grids hear of a GPU by these words alone.
        (grid,) = (chosen & {*GRIDS} if gpu else set()) or {None}
        account = "--account=genomics" if "example" in chosen else ""
        assert found["clusterOptions"] == [
            " ".join(filter(None, (account, asks_for_a_gpu(grid, cpus, size)))) for size in sizes
        ], name


def asks_for_a_gpu(grid: str | None, cpus: int, gigabytes: int) -> str:
    return {
        None: "",
        "slurm": "--gres=gpu:1",
        "sge": "-l gpu=1",
        "lsf": "-gpu num=1",
        "pbspro": f"-l select=1:ncpus={cpus}:mem={gigabytes * 1024}mb:ngpus=1",
    }[grid]


def test_a_site_says_what_its_jobs_are_given_and_how_a_gpu_is_asked_for(combined):
    found = combined["slurm,singularity,gpu with words of the site's"]
    assert found["DEEPVARIANT"]["clusterOptions"] == ["-A lab --gpus=a100:1"] * 3
    assert found["REPORT"]["clusterOptions"] == ["-A lab"] * 3


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_alone_runs_on_this_machine_within_its_limits(combined, engine):
    found = combined[engine]
    assert enabled(found[""]) == ({engine} - {"local"})
    assert "executor" not in found[""]["process"]
    cores, room = os.cpu_count(), MEMORY
    for name, label in LABELS.items():
        fit = max(1, min(cores, room // (RESOURCES[label][1][0] * 1024**3)))
        most = {"process_single": cores, "process_audit": cores, "process_federation": 16}.get(label, fit)
        assert found[name]["maxForks"] == most, name
    # The executor's own count of what is free loses some: a run waited for ever for memory that nobody held.
    assert found[""]["executor"]["$local"] == {"cpus": 1000000, "memory": "1 EB", "queueSize": cores + 16}


@pytest.mark.parametrize("profile", [name for name in COMBINATIONS if {*name.split(",")} & {*SCHEDULERS}])
def test_a_scheduler_joins_any_engine_and_bounds_nothing_by_this_machine(combined, profile):
    chosen = {*profile.split(",")}
    found = combined[profile]
    (scheduler,) = chosen & {*SCHEDULERS}
    assert enabled(found[""]) == chosen & {*ENGINES} - {"local"}
    assert found[""]["process"]["executor"] == scheduler
    assert found[""]["params"]["federation_slots"] is None
    assert "poolSize" not in found[""]
    for name in LABELS:
        assert "maxForks" not in found[name], name
        assert ("resourceLimits" in found[name]) == ("example" in chosen), name
        assert (found[name]["containerOptions"] == "") == (scheduler in CLOUDS), name
    # Jobs may wait in a queue for hours.
    for name in ("AGGREGATE", "TRAIN_SITE"):
        assert "params.join_deadline ?: (params.scheduler ? 21600 : 600)" in found[name]["ext"]["args"]
    assert found[""]["params"]["scheduler"] == scheduler


def test_the_order_of_profiles_does_not_matter(combined):
    found = combined["slurm,apptainer,gpu,test,example"]
    assert combined["example,test,gpu,apptainer,slurm"] == found
    assert found["NORMALISE_READS"]["queue"] == "short"
    assert found["TRAIN_SITE"]["queue"] == "long"
    assert found["NORMALISE_READS"]["resourceLimits"] == {"cpus": 32, "memory": "256 GB", "time": "1d"}


@pytest.mark.parametrize("way", ["--site_config", "-c"])
@pytest.mark.parametrize("profile", WITH_A_SITE)
def test_what_a_site_writes_is_added_and_takes_nothing_else_away(combined, way, profile):
    """A selector once dropped publishDir, arguments and memory that Cordon gives by the same one."""
    one, other = combined[profile], combined[f"{profile} {way}"]
    assert other[""]["params"]["outdir"] == "elsewhere"
    assert joint_selectors()
    for name, label in LABELS.items():
        expected = one[name] | {
            "clusterOptions": [f"of {label}"] * 3, "machineType": f"m-{name}", "penv": "mpi",
            "ext": one[name].get("ext", {}) | {"note": f"of {name}"},
        }  # fmt: skip
        if name.startswith("GATK4_"):
            expected["scratch"] = "/fast"
        if any(name in names.split("|") for names in joint_selectors()):
            expected["beforeScript"] = "module load site"
        # On this machine, most labels have bounds of their own.
        bounded = "local" in profile and label not in ("process_single", "process_audit")
        expected["maxForks"] = one[name]["maxForks"] if bounded else 3
        assert other[name] == expected, name


@pytest.mark.parametrize("user", [0, 65534], ids=["root", "another user"])
def test_containers_run_as_who_started_them_and_a_rootless_podman_knows_who_that_is(combined, user):
    """A container that runs as anyone else cannot write into its task's folder."""
    if os.geteuid() not in (0, user):
        pytest.skip("to become another user needs root")
    as_user = {} if os.geteuid() == user else {"user": user, "group": user}
    for engine, told in (("docker", []), ("podman", ["--no-healthcheck"])):
        options = combined[engine][""][engine]["runOptions"]
        # Nextflow puts them into the task's bash as they are.
        run = subprocess.run(
            ["bash", "-c", f"echo {options}"], text=True, capture_output=True, check=True, **as_user
        )
        mapped = ["--userns=keep-id"] if engine == "podman" and user else []
        assert run.stdout.split() == [*mapped, "-u", f"{user}:{user}", *told]


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
