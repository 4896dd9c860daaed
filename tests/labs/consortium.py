"""A consortium for tests: labelled tables that a model can learn from, keys, and sites as processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cordon.federation.aggregator import run as aggregator
from cordon.federation.aggregator.service import Endpoint, serve
from cordon.federation.credentials import enrol
from cordon.federation.flower import processes
from cordon.federation.flower.processes import free_port
from cordon.federation.plan import Plan, Site, read_enrolment
from cordon.ledger.log import ChainedLog
from cordon.model.architectures import Parameters
from cordon.variants.features import FEATURES
from cordon.variants.table import LABELLED, write_table
from warm import NETWORK, Warm, as_the_product_starts_it

ROOT = Path(__file__).resolve().parents[2]
PATIENTS = 6


def labelled_table(site: str, seed: int, rows: int = 600) -> pa.Table:
    """A labelled table of six patients whose labels follow a fixed rule, with noise."""
    rule = np.random.default_rng(0).normal(size=len(FEATURES))
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, len(FEATURES))).astype(np.float32)
    columns: dict[str, object] = {}
    for field in LABELLED:
        if field.name in FEATURES:
            columns[field.name] = features[:, FEATURES.index(field.name)]
        elif field.name == "label":
            columns[field.name] = (features @ rule + random.normal(size=rows) > 0).astype(np.int8)
        elif field.name == "patient":
            columns[field.name] = [f"{site}-p{row % PATIENTS}" for row in range(rows)]
        elif field.type == pa.string():
            columns[field.name] = [site] * rows
        elif field.name == "position":
            columns[field.name] = np.arange(1, rows + 1)
        else:
            columns[field.name] = pa.nulls(rows, field.type)
    return pa.table(columns, schema=LABELLED)


def random_updates(start: Parameters, *seeds: int) -> dict[str, Parameters]:
    """An update for ``start`` by site, of one normal draw a number (deviation 0.2), site by seed."""
    return {
        f"h{seed}": {
            name: np.random.default_rng(seed).normal(scale=0.2, size=value.shape).astype(np.float32)
            for name, value in start.items()
        }
        for seed in seeds
    }


class Consortium:
    """Keys, tables and processes of some sites in one folder, and an aggregator in this process."""

    def __init__(
        self, folder: Path, sites: list[str], host: str | None = "127.0.0.1", *,
        listen: str = "127.0.0.1", address: str = "", port: int = 0, cold: Collection[str] = (),
    ) -> None:  # fmt: skip
        """``listen``: the aggregator's own address; ``address``: what sites call it, if not ``host``.

        Processes begin warm (see there), but for those in another environment and those that are ``cold``:
        sites, or "aggregator".
        """
        self.folder = folder
        declared = [Site(name, PATIENTS, 1.0) for name in sites]
        known = address or host or "127.0.0.1"
        enrol(declared, None if host is None else known, state=folder / "keys", outdir=folder / "run")
        self.sites = read_enrolment(folder / "run" / "aggregator" / "enrolment.json")
        self.host = listen
        self.port = port or free_port(listen)
        self.address = f"{known}:{self.port}"
        self.said: list[str] = []
        self._cold = cold
        self._processes: dict[str, subprocess.Popen[bytes] | Warm] = {}
        sheet = "".join(f"{name},{PATIENTS},1\n" for name in sites)
        (folder / "sites.csv").write_text(f"site,declared_patients,weight\n{sheet}")
        for seed, name in enumerate(sites, start=1):
            write_table(labelled_table(name, seed), folder / f"{name}.parquet")

    def start(
        self, site: str, *, behaviour: str = "", epsilon: float = 8.0, deadline: float = 60.0,
        policy: Path | None = None, transport: Path | None = None, leave_after: int = 0,
        environment: Mapping[str, str] | None = None, within: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Start a site's process; ``behaviour`` is one of rogue_site's, or none.

        ``within`` is a command that runs it, such as in another network; ``leave_after`` so many rounds its
        walltime is over.
        """
        folder = self.folder / site
        folder.mkdir(exist_ok=True)
        script = [str(ROOT / "bin" / "train_site.py")]
        if behaviour:
            script = [str(ROOT / "tests" / "sites" / "rogue_site.py"), behaviour]
        elif leave_after:
            script = [str(ROOT / "tests" / "sites" / "short_walltime.py"), str(leave_after)]
        keys = self.folder / "run" / "sites" / site
        arguments = [
            *script,
            "--site", site, "--sites", str(self.folder / "sites.csv"),
            "--variants", str(self.folder / f"{site}.parquet"), "--address", self.address,
            *(("--policy", str(policy)) if policy else ("--certificate", str(keys / "ca.crt"))),
            "--key", str(keys / "site.key"),
            "--epsilon", str(epsilon), "--delta", "1e-5", "--state", str(self.folder / "state"),
            "--join_deadline", str(deadline), "--output", "model.safetensors", "--status", "spent.json",
            "--walltime", "36000", *(("--transport_dir", str(transport)) if transport else ()),
        ]  # fmt: skip
        self._processes[site] = self._process(site, arguments, folder, environment or {}, within)

    def _process(
        self, name: str, arguments: list[str], folder: Path, environment: Mapping[str, str],
        within: Sequence[str],
    ) -> subprocess.Popen[bytes] | Warm:  # fmt: skip
        """Start ``python ARGUMENTS`` in ``folder``, where what it says goes to ``log``."""
        network = {NETWORK: within[3]} if within[:3] == ["ip", "netns", "exec"] else {}
        if name not in self._cold and not environment and len(within) == 4 * len(network):
            return Warm(arguments, cwd=folder, log=folder / "log", environment={**os.environ, **network})
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*within, sys.executable, *arguments], cwd=folder, stdout=log, stderr=log,
                env={**os.environ, **environment},
            )  # fmt: skip

    def aggregate(
        self, plan: Plan, *, say: object = None, evidence: str = "", transport: Path | None = None,
        **limits: float,
    ) -> tuple[object, aggregator.Record]:  # fmt: skip
        """Run the aggregator from start to end, here; what it says is kept in ``said``."""

        def listen(line: str) -> None:
            self.said.append(line)
            if say is not None:
                say(line)  # type: ignore[operator]

        wait = {"min_sites": 2, "join_deadline": 60.0, "round_deadline": 60.0} | limits
        with pytest.MonkeyPatch.context() as patch:
            if "aggregator" not in self._cold:
                patch.setattr(processes, "Process", as_the_product_starts_it())
            credentials, names = self.folder / "run" / "aggregator", [self.address.rpartition(":")[0]]
            return serve(
                aggregator.RunSetup(plan, self.sites, FEATURES, aggregator.RoundLimits(**wait)),
                Endpoint(self.host, self.port, credentials, names, evidence, transport),
                state=self.folder / "aggregator", workdir=self.folder / "work", say=listen,
            )  # fmt: skip

    def start_aggregator(
        self, plan: Plan, *, transport: Path | None = None, environment: Mapping[str, str] | None = None,
        within: Sequence[str] = (), **limits: float,
    ) -> subprocess.Popen[bytes] | Warm:  # fmt: skip
        """Start the aggregator as a process of its own; what it says goes to ``work/log``."""
        folder = self.folder / "work"
        folder.mkdir(exist_ok=True)
        (folder / "plan.json").write_text(json.dumps(plan.to_dict()))
        wait = {"min_sites": 2, "join_deadline": 60.0, "round_deadline": 60.0} | limits
        arguments = [
            str(ROOT / "bin" / "aggregate.py"), "--plan", "plan.json",
            "--credentials", str(self.folder / "run" / "aggregator"), "--address", f"{self.host}:{self.port}",
            "--state", str(self.folder / "aggregator"), "--output", "model.safetensors",
            "--name", self.address.rpartition(":")[0], "--record", "federation.json",
            *(("--transport_dir", str(transport)) if transport else ()),
            *(word for name, value in wait.items() for word in (f"--{name}", str(value))),
        ]  # fmt: skip
        process = self._process("aggregator", arguments, folder, environment or {}, within)
        self._processes["aggregator"] = process
        return process

    def finish(self, site: str, timeout: float = 60.0) -> int:
        """The exit status of a site's process."""
        return self._processes[site].wait(timeout=timeout)

    def log(self, site: str) -> str:
        return (self.folder / site / "log").read_text()

    def kill_supernode(self, site: str) -> int:
        """Kill the site's SuperNode outright, as a machine that loses power would."""
        pid = int(re.findall(r"SuperNode (\d+) connects", self.log(site))[-1])
        os.kill(pid, signal.SIGKILL)
        return pid

    def reserved(self, site: str) -> list[dict[str, object]]:
        """What a site's own ledger says it reserved."""
        return ChainedLog(self.folder / "state" / f"{site}.sqlite").of_kind("reserved")

    def ledger(self) -> list[dict[str, object]]:
        """The aggregator's decisions."""
        return ChainedLog(self.folder / "aggregator" / "ledger.sqlite").of_kind("decision")

    def stop(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + 20
        for process in self._processes.values():
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()


def plan(rounds: int, **changes: object) -> Plan:
    """A plan with the pipeline's defaults and the demo's model, started."""
    settings: dict[str, object] = {
        "model": "logistic", "unit": "patient", "epsilon": 8.0, "delta": 1e-5, "rounds": rounds,
        "local_steps": 2, "sampling_rate": 0.5, "clip_norm": 0.05, "learning_rate": 2.0,
        "max_variants_per_patient": 256,
    }  # fmt: skip
    return Plan.calibrated(**(settings | changes)).started()


def children(parent: int, module: str) -> list[int]:
    """Processes that ``parent`` started with ``-m module``."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdecimal() else []
            if module.encode() in words and f"PPid:\t{parent}\n" in (folder / "status").read_text():
                found.append(int(folder.name))
        except OSError:  # it ended in between
            continue
    return found
