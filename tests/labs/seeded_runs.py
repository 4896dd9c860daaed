"""Whole runs of the test profile under one seed and with the same keys: then their results are the same.

The seed is a test double's (tests/doubles/seeded); nothing of these runs is private. They are as small as a
run with everything can be: what is compared is where tasks ran.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from cordon.federation.credentials import enrol
from cordon.federation.plan import Site
from cordon.ledger.log import ChainedLog
from pipeline_lab import ROOT, environment, nextflow_command

SEED = "7"
SITES = ("north", "south")
PATIENTS = 2  # a site: one to train on, one held out
COHORT = ("--simulate_patients", str(PATIENTS), "--simulate_held_out", "1")
DOUBLE = ROOT / "tests" / "doubles" / "seeded"


class SeededRuns:
    """Runs in folders below ``folder``, each with a copy of the same keys and of an empty ledger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        enrol(
            [Site(name, PATIENTS, 1.0) for name in SITES],
            "127.0.0.1",
            state=folder / "given" / "keys",
            outdir=folder / "keys",
        )
        ChainedLog(folder / "given" / "aggregator" / "ledger.sqlite")

    def place(self, name: str) -> Path:
        return self.folder / name

    def command(self, name: str, profile: str, *options: str, pipeline: Path = ROOT) -> list[str]:
        """What starts the run ``name`` of ``pipeline``, in its own folder, which is made ready for it."""
        state = self.place(name) / "results" / "state"
        if not state.exists():
            shutil.copytree(self.folder / "given", state)
        (self.place(name) / "seeded.config").write_text(
            f"env.CORDON_TEST_SEED = '{SEED}'\nenv.PYTHONPATH = '{DOUBLE}'\n"
            # A container sees what it is given, and no more.
            f"docker.runOptions = '-u $(id -u):$(id -g) -v {DOUBLE}:{DOUBLE}:ro'\n"
            "process { withName: 'SIMULATE_COHORT' { ext.args = '--length 30000' } }\n"
            # A scheduler is asked again soon: a job here is over in seconds.
            "executor { pollInterval = '1 sec'; queueStatInterval = '2 sec' }\n"
        )
        given = ("-c", "seeded.config", *COHORT, *options)
        return nextflow_command(*given, profile=f"test,{profile}", pipeline=pipeline)

    def run(
        self, name: str, profile: str, *options: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Play the run ``name`` to its end; its output is in stdout."""
        return subprocess.run(
            self.command(name, profile, *options), cwd=self.place(name), env=environment() | variables,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def scored(self, name: str) -> dict[str, bytes]:
        """The scored VCFs of the run ``name`` and their indices, byte for byte."""
        files = sorted((self.place(name) / "results" / "scored").iterdir())
        return {file.name: file.read_bytes() for file in files}
