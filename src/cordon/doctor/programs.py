"""The programs of a run: Java, Nextflow, the engine's and the scheduler's."""

from __future__ import annotations

import difflib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from cordon import foreign
from cordon.doctor.cluster import slurm
from cordon.doctor.finding import Finding, failed, ok, warning

COMMAND_TIMEOUT = 60
JAVA = (17, 23)  # Nextflow 24.10's own bounds
NEXTFLOW = (24, 10, 0)
# What shows that an engine, or a scheduler, is there and answers.
ENGINES = {
    "docker": ("docker", "info", "--format", "{{.ServerVersion}}"),
    "podman": ("podman", "info", "--format", "{{.Version.Version}}"),
    "singularity": ("singularity", "--version"),
    "apptainer": ("apptainer", "--version"),
    "charliecloud": ("ch-run", "--version"),
    "local": ("gatk", "HaplotypeCaller", "--version"),
}
SCHEDULERS = {
    "slurm": ("sinfo", "--noheader", "--format=%P|%T|%D|%l|%a"),
    "sge": ("qstat", "-help"),
    "lsf": ("lsid",),
    "pbspro": ("qstat", "--version"),
    "awsbatch": ("aws", "--version"),
    "k8s": ("kubectl", "version", "--client"),
    "google-batch": ("gcloud", "--version"),
}
# Profiles that are neither, and what opens a block in the site's file, which may bring its own.
OTHERS = ("gpu", "demo", "example", "test")
BLOCK = re.compile(r"^\s*['\"]?([\w-]+)['\"]?\s*\{", re.MULTILINE)
ACCOUNTS = ("sacctmgr", "--noheader", "--parsable2", "show", "associations", "format=account")
SUBMITS = {"slurm": "sbatch", "sge": "qsub", "lsf": "bsub", "pbspro": "qsub"}


def programs(profile: str, written: str = "") -> Iterator[Finding]:
    """Findings about what a run under ``profile`` starts with; ``written`` is the text of the site's file."""
    chosen = profile.split(",")
    known = {*ENGINES, *SCHEDULERS, *OTHERS, *BLOCK.findall(written)}
    for name in (name for name in chosen if name and name not in known):
        similar = difflib.get_close_matches(name, known, n=1)
        remedy = f"Is it {similar[0]}?" if similar else f"Known are {', '.join(sorted(known))}."
        yield failed("profile", f"{foreign.name(name)}: no profile of that name", remedy)
    yield _java()
    yield _nextflow()
    engines = [name for name in ENGINES if name in chosen]
    if not engines:
        yield warning(
            "engine",
            "none in --profile",
            f"Choose one of {', '.join(ENGINES)}; else programs come from PATH.",
        )
    for name in engines:
        yield _answers(f"engine {name}", ENGINES[name], _ENGINE_REMEDY.get(name, f"Install {name}."))
    for name in (name for name in SCHEDULERS if name in chosen):
        remedy = "Run Nextflow on a node from which jobs are submitted, or load the scheduler's module."
        yield _answers(f"scheduler {name}", SCHEDULERS[name], remedy)
        if name == "slurm" and (said := _said(SCHEDULERS[name])) is not None:
            yield from slurm(written, said.splitlines(), (_said(ACCOUNTS) or "").split())
        if name in SUBMITS and shutil.which(SUBMITS[name]) is None:
            yield failed(f"scheduler {name}", f"{SUBMITS[name]} is not on PATH", remedy)


_ENGINE_REMEDY = {
    "docker": "Install Docker, start its daemon, and be in its group; or choose another engine.",
    "local": "Run `make setup` and put .venv/bin and tools/bin on PATH; or choose a container engine.",
}


def _java() -> Finding:
    remedy = f"Install a JDK from {JAVA[0]} to {JAVA[1]} and set JAVA_HOME, or load its module."
    said = _said(("java", "-version"))
    if said is None:
        return failed("Java", "java is not on PATH, or does not run", remedy)
    match = re.search(r'version "(\d+)', said)
    if match is None or not JAVA[0] <= int(match[1]) <= JAVA[1]:
        return failed("Java", _first_line(said), remedy)
    return ok("Java", _first_line(said))


def _nextflow() -> Finding:
    wanted = ".".join(map(str, NEXTFLOW))
    remedy = f"Install Nextflow {wanted} or newer, or put tools/bin, which `make setup` fills, on PATH."
    said = _said(("nextflow", "-version"))
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", said or "")
    if said is None or match is None:
        return failed("Nextflow", "nextflow is not on PATH, or does not run", remedy)
    if tuple(map(int, match.groups())) < NEXTFLOW:
        return failed("Nextflow", match[0], remedy)
    return ok("Nextflow", match[0])


def _answers(what: str, command: Sequence[str], remedy: str) -> Finding:
    said = _said(command)
    if said is None:
        return failed(what, f"`{' '.join(command)}` fails", remedy)
    return ok(what, _first_line(said))


def _said(command: Sequence[str]) -> str | None:
    """What a command prints; None where it is missing, fails or does not end."""
    try:
        run = subprocess.run(
            command, text=True, capture_output=True, timeout=COMMAND_TIMEOUT, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout + run.stderr if run.returncode == 0 else None


def _first_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[0] if lines else "answers"
