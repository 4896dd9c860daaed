"""Where a run's tasks are run changes nothing: on this machine, on a real Slurm, in real containers.

Slurm is two nodes on this machine (tests/slurm), each task an sbatch job. The containers are those that
`make images` builds, out of an offline bundle. Noise comes of a seed, by a test double, or no two runs could
be compared (tests/pipeline/test_seeded_double.py shows that another seed makes other noise).
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cordon.federation.plan import Plan
from cordon.ledger.log import ChainedLog
from cordon.privacy.accountants import epsilon_rdp
from docker_lab import bundled, image
from pipeline_lab import LABELS, RESOURCES, ROOT, environment, tasks
from seeded_runs import PATIENTS, SITES, SeededRuns

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(1200)]

SLURM = ("munged", "slurmctld", "slurmd", "sbatch")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> SeededRuns:
    """Runs to compare; the one called ``local`` is done."""
    runs = SeededRuns(tmp_path_factory.mktemp("runs"))
    local = runs.run("local", "local", "--audit", "none")
    assert local.returncode == 0, local.stdout
    assert len(runs.scored("local")) == 2 * PATIENTS * len(SITES)
    return runs


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[str]:
    """The configuration of a running Slurm, for SLURM_CONF."""
    if os.geteuid() != 0:
        pytest.skip("a Slurm of its own needs root")
    if missing := [name for name in SLURM if shutil.which(name) is None]:
        pytest.skip(
            f"no Slurm here ({', '.join(missing)}): apt-get install slurmctld slurmd slurm-client munge"
        )
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([ROOT / "tests" / "slurm" / "start", folder], check=True)
    try:
        yield str(folder / "slurm.conf")
    finally:
        subprocess.run([ROOT / "tests" / "slurm" / "stop", folder], check=True)


def jobs(folder: Path) -> int:
    """How many sbatch jobs Nextflow's log in ``folder`` tells of."""
    log = (folder / ".nextflow.log").read_text()
    return sum("[SLURM] submitted process" in line for line in log.splitlines())


SITE = """
process {
    withName: 'BCFTOOLS_CALL' { memory = 3.GB }
    withLabel: 'process_federation' { time = 30.h }
}
"""


def test_slurm_gives_the_same_bytes_as_this_machine(runs, slurm):
    """And its jobs are what the labels say, or what a site's own file says, which takes nothing else away."""
    runs.place("slurm").mkdir(exist_ok=True)
    (runs.place("slurm") / "site.config").write_text(SITE)
    given = ("--audit", "none", "--site_config", "site.config")
    run = runs.run("slurm", "local,slurm", *given, SLURM_CONF=slurm)
    assert run.returncode == 0, run.stdout
    folder = runs.place("slurm")
    assert jobs(folder) == len(tasks(folder)) > 30
    assert runs.scored("slurm") == runs.scored("local")
    given = slurm_jobs(slurm)
    assert len(given) == jobs(folder)
    nodes: dict[str, set[str]] = {}
    for name, node, *granted in given:
        (process,) = (process for process in LABELS if f"_{process}_(" in name)
        cores, sizes, times = RESOURCES[LABELS[process]]
        cores = 1 if process == "GATK4_HAPLOTYPECALLER" else cores  # a made-up patient's
        size = 3 if process == "BCFTOOLS_CALL" else sizes[0]
        days, hours = divmod(30 if LABELS[process] == "process_federation" else times[0], 24)
        limit = f"{days}-{hours:02}:00:00" if days else f"{hours:02}:00:00"
        assert granted == [cores, size * 1024, limit], name
        nodes.setdefault(LABELS[process], set()).add(node)
    # Aggregator and sites are on different nodes, and found one another without being told how.
    assert nodes["process_federation"] == {"node1", "node2"}
    assert list((folder / "results" / "calls").glob("*.bcftools.vcf.gz"))


def slurm_jobs(configuration: str) -> list[tuple[str, str, int, int, str]]:
    """Name, node, cores, MB and time limit of every job that Slurm was given."""
    shown = subprocess.run(
        ["scontrol", "--oneliner", "show", "jobs"],
        env=os.environ | {"SLURM_CONF": configuration}, text=True, capture_output=True, check=True,
    )  # fmt: skip
    found = []
    for line in shown.stdout.splitlines():
        job = dict(part.split("=", 1) for part in line.split() if "=" in part)
        size = job["MinMemoryNode"]
        megabytes = int(float(size[:-1]) * {"M": 1, "G": 1024}[size[-1]])
        # A tag with a space in it is two words.
        name = line.partition("JobName=")[2].partition(" UserId=")[0]
        found.append((name, job["NodeList"], int(job["NumCPUs"]), megabytes, job["TimeLimit"]))
    return found


def decided_rounds(state: Path) -> set[int]:
    """The rounds of which the aggregator's ledger in ``state`` holds a decision."""
    ledger = state / "aggregator" / "ledger.sqlite"
    return {row["round"] for row in ChainedLog(ledger).of_kind("decision")} if ledger.exists() else set()


def shorten(process: str) -> Path:
    """Let the running job of ``process`` end at its first full minute that is 30 s away.

    Slurm counts limits in minutes and looks at them each 30 s, so the signal beforehand comes alone, not
    together with the one that ends the job.

    Returns: the task's folder.
    """
    running = subprocess.run(
        ["squeue", "--noheader", "--states=RUNNING", "--format=%i %j %S %Z"],
        text=True,
        capture_output=True,
        check=True,
    )
    ((job, _, start, task),) = (line.split() for line in running.stdout.splitlines() if process in line)
    age = datetime.now() - datetime.fromisoformat(start)
    limit = (age + timedelta(seconds=30)) // timedelta(minutes=1) + 1
    subprocess.run(["scontrol", "update", f"JobId={job}", f"TimeLimit={limit}"], check=True)
    return Path(task)


def test_a_run_that_slurm_kills_at_its_time_limit_is_resumed_and_accounted_right(runs, slurm, monkeypatch):
    """The aggregator's job is not tried again, so the run ends with it, in its middle.

    Its limit is shortened once rounds are decided: how long the first takes is each machine's own matter.
    """
    monkeypatch.setenv("SLURM_CONF", slurm)
    folder = runs.place("slurm")
    folder.mkdir(exist_ok=True)
    (folder / "once.config").write_text("process { withName: 'AGGREGATE' { errorStrategy = 'terminate' } }\n")
    rounds, state = 60, folder / "killed_state"
    given = ["-resume", "--audit", "none", "--rounds", str(rounds), "--state_dir", str(state)]
    with (folder / "killed.log").open("w") as log:
        run = subprocess.Popen(
            runs.command("slurm", "local,slurm", "-c", "once.config", *given),
            cwd=folder, env=environment(), stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        while run.poll() is None and len(decided_rounds(state)) < 3:
            time.sleep(0.5)
        assert run.poll() is None, (folder / "killed.log").read_text()
        task = shorten("AGGREGATE")
        assert run.wait() != 0
    # Nextflow has Slurm tell a job beforehand, by USR2 (12), that its time is over, and that ends it. The
    # status is read where the job left it, since Nextflow may be interrupted in its own last words.
    said = (folder / "killed.log").read_text()
    assert "AGGREGATE" in said
    assert (task / ".exitcode").read_text().strip() == str(128 + signal.SIGUSR2), said
    assert 3 <= len(decided_rounds(state)) < rounds

    resumed = runs.run("slurm", "local,slurm", *given, SLURM_CONF=slurm)
    assert resumed.returncode == 0, resumed.stdout
    decided = ChainedLog(state / "aggregator" / "ledger.sqlite").of_kind("decision")
    record = json.loads((folder / "results" / "federation" / "federation.json").read_text())
    assert len(record["rounds"]) == rounds
    for site in SITES:
        own = [row for row in decided if row["site"] == site]
        # Each round was decided once and counts once, the one too whose answer the kill cut off: that answer
        # is lost, for a site gives none twice.
        assert sorted(row["round"] for row in own) == list(range(1, rounds + 1))
        assert [len(row["events"]) for row in own] == [1] * rounds
        lost = [row for row in own if row["decision"] != "accepted"]
        assert len(lost) <= 1
        assert all("answered this round before" in row["reason"] for row in lost)
        reserved = ChainedLog(state / "sites" / f"{site}.sqlite").of_kind("reserved")
        assert len(reserved) >= rounds
        assert {row["round"] for row in reserved} == set(range(1, rounds + 1))
        spent = json.loads((folder / "results" / "federation" / "sites" / f"{site}.spent.json").read_text())
        plan = Plan.from_dict(spent["plan"])
        expected = epsilon_rdp([plan.event] * len(reserved), delta=plan.delta)
        assert spent["epsilon_rdp"] == pytest.approx(expected, rel=1e-9)
        assert spent["epsilon_rdp"] <= plan.epsilon


@pytest.mark.timeout(1800)
def test_containers_from_a_bundle_give_the_same_bytes_where_no_route_leads_out(runs, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("a network namespace and a second Docker daemon need root")
    if any(shutil.which(tool) is None for tool in ("dockerd", "unshare", "ip", "zstd")):
        pytest.skip("dockerd, unshare, ip or zstd is not on this machine")
    images = ("python", "train", "gatk4")
    for name in images:
        image(name)
    bundle, work = bundled(tmp_path / "bundle", *images), tmp_path / "work"
    work.mkdir()
    place = runs.place("bundle")
    place.mkdir()
    alone = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = runs.command("bundle", "docker", "--audit", "none", pipeline=work / "cordon")
    try:
        run = subprocess.run(
            [*alone, ROOT / "tests" / "offline", bundle, work, *command], cwd=place, env=environment(),
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout[-6000:]
        assert {path.name for path in (bundle / "sbom").iterdir()} == {
            f"cordon-{name}.cdx.json" for name in images
        }
    finally:
        # Images and layers of a second daemon are more than a temporary folder should keep.
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(bundle, ignore_errors=True)
    scored = runs.scored("bundle")
    assert scored == runs.scored("local")
    assert len([name for name in scored if name.endswith(".vcf.gz")]) == PATIENTS * len(SITES)
    results = place / "results"
    assert all(b"CORDON=" in gzip.decompress(scored[name]) for name in scored if name.endswith(".vcf.gz"))
    assert (results / "report.html").exists()
