#!/usr/bin/env python3
"""Rounds a second of the aggregator with many simulated sites, and its memory; with the audit and without it.

    python benchmarks/aggregator.py --sites 10,100,1000

A simulated site answers with noise as the plan has it, ``--answer_after`` seconds after it was asked: the
time in which a SuperNode looks for work, with no training. Its messages are serialised and read as Flower
does it, but cross no network. "Plain" takes every readable update and averages it. Both write checkpoints;
each is a process of its own. "After the answers" is what the aggregator then takes: the rest of a round is
waiting.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from cordon.federation.aggregator.checkpoint import Checkpoints
from cordon.federation.aggregator.exchange import Exchange, read
from cordon.federation.aggregator.judge import Answer, Auditor, Decision
from cordon.federation.aggregator.noise_checks import reference
from cordon.federation.aggregator.run import Aggregation, RoundLimits, RunSetup
from cordon.federation.messages import Reply, ReplyStatus
from cordon.federation.plan import Plan, Site
from cordon.ledger.log import ChainedLog
from cordon.ledger.rows import Judgement
from cordon.model.initial_weights import initial_parameters
from cordon.variants.features import FEATURES

PATIENTS = 40


class Simulated(Exchange):
    """Sites that are all there and answer at once."""

    def __init__(self, plan: Plan, sites: list[Site], answer_after: float) -> None:
        super().__init__(None, sites)  # type: ignore[arg-type]
        self._plan, self._sites = plan, sites
        self._shapes = {n: a.shape for n, a in initial_parameters(plan.model, len(FEATURES)).items()}
        self._deviation = reference(plan, PATIENTS).deviation
        self._source = np.random.default_rng(0)
        self._answer_after = answer_after
        self.making = 0.0  # seconds spent on what is the sites' work

    def online(self) -> dict[Site, int]:
        return {site: number for number, site in enumerate(self._sites, start=1)}

    def ask(
        self, contents: Mapping[Site, Any], kind: str, deadline: float, *, group: str
    ) -> dict[Site, Answer]:
        """The replies, read as the aggregator reads them."""
        if kind != "train":
            return dict.fromkeys(contents, (None, ""))
        from flwr.common.serde import message_from_proto, message_to_proto
        from flwr.proto.message_pb2 import Message as Proto

        time.sleep(self._answer_after)
        began = time.perf_counter()
        sent = {site: message_to_proto(self._reply(int(group))).SerializeToString() for site in contents}
        self.making += time.perf_counter() - began
        return {site: read(message_from_proto(Proto.FromString(data))) for site, data in sent.items()}

    def _reply(self, number: int) -> Any:
        from flwr.app import Message

        update = {
            name: self._source.normal(scale=self._deviation, size=shape).astype(np.float32)
            for name, shape in self._shapes.items()
        }
        content = Reply(ReplyStatus.TRAINED, self._plan.run, number, self._plan.event, update).to_records()
        return Message(content, dst_node_id=1, message_type="train")


class Plain(Auditor):
    """No audit: whatever can be read is averaged."""

    def judge(self, round_number: int, replies: Mapping[Site, Answer], *, keep: Any = None) -> list[Decision]:
        decisions = [Decision(site.name, Judgement.ACCEPTED, "", 0.0, 0.0) for site in replies]
        keep(decisions)
        return decisions


def timed(way: str, count: int, rounds: int, answer_after: float) -> tuple[float, float]:
    """Seconds of a round, and the process's peak memory in MiB."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    plan = Plan.calibrated(
        run="", model="mlp", unit="patient", epsilon=8.0, delta=1e-6, rounds=rounds, local_steps=10,
        sampling_rate=0.5, clip_norm=0.05, learning_rate=2.0, max_variants_per_patient=256, averaged_rounds=5,
    ).started()  # fmt: skip
    sites = [Site(f"site{n}", PATIENTS, 1.0, f"key {n}") for n in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        log = ChainedLog(Path(folder) / "ledger.sqlite")
        setup = RunSetup(plan, sites, FEATURES, RoundLimits(1, 1.0, 1.0))
        checkpoints = Checkpoints(Path(folder), log)
        run = Aggregation(setup, ledger=log, checkpoints=checkpoints, say=lambda line: None)
        if way == "plain":
            run._auditor = Plain(plan, log, expected=run.parameters)
        exchange = Simulated(run.plan, sites, answer_after)
        times = []
        for number in range(1, rounds + 1):
            made, began = exchange.making, time.perf_counter()
            run._round(exchange, number)
            times.append(time.perf_counter() - began - (exchange.making - made))
    return float(np.median(times)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@click.command()
@click.option("--sites", default="10,100,1000", show_default=True)
@click.option("--rounds", default=10, show_default=True)
@click.option("--answer_after", default=1.0, show_default=True, help="Seconds; real sites take no less.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list of rows.")
def main(sites: str, rounds: int, answer_after: float, as_json: bool) -> None:
    """Print rounds a second and memory, with the audit and by plain averaging, side by side."""
    rows = []
    context = multiprocessing.get_context("spawn")
    for count in map(int, sites.split(",")):
        found = {}
        for way in ("plain", "audited"):
            with context.Pool(1) as pool:
                found[way] = pool.apply(timed, (way, count, rounds, answer_after))
        plain, audited = found["plain"][0], found["audited"][0]
        row = {
            "sites": count, "answer_after_s": answer_after, "plain_s": plain, "audited_s": audited,
            "ratio": audited / plain, "audit_ms_a_site": 1000 * (audited - plain) / count,
            "peak_mb": found["audited"][1],
        }  # fmt: skip
        rows.append(row)
        if not as_json:
            after = f"after the answers {plain - answer_after:.3f} and {audited - answer_after:.3f} s"
            click.echo(
                f"{count:5d} sites  plain {plain:7.3f} s, audited {audited:7.3f} s a round "
                f"({row['ratio']:.3f} x; {after}; {row['audit_ms_a_site']:.2f} ms a site), "
                f"peak {row['peak_mb']:.0f} MiB"
            )
    if as_json:
        click.echo(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
