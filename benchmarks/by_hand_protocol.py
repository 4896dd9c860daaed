#!/usr/bin/env python3
"""What leaves a site, what a restart forgets and what one site can do: by hand on Flower, and with Cordon.

    python benchmarks/by_hand_protocol.py results/demo/variants/*.parquet

``by_hand_app.py`` is what one would write by hand. A site's last ``--held_out`` tables are left out.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

import by_hand_app
from by_hand import (
    DELTA,
    EPSILON,
    PATIENTS,
    ROWS,
    Cohort,
    Grid,
    configured,
    plan_of,
    quiet,
    samples_of,
    steps_and_rate,
)
from cordon.auditing.egress import check_egress
from cordon.auditing.made_up_site import TIP
from cordon.federation.aggregator.judge import Auditor
from cordon.federation.messages import Reply, ReplyStatus, Task
from cordon.federation.plan import Plan, Site
from cordon.federation.site.participate import Participant
from cordon.federation.site.terms import Terms
from cordon.ledger.log import ChainedLog
from cordon.ledger.site import SiteLedger
from cordon.model.architectures import Parameters
from cordon.model.initial_weights import initial_parameters
from cordon.privacy.accountants import epsilon_rdp
from cordon.privacy.events import GAUSSIAN, Event
from cordon.privacy.guarantee import Guarantee
from cordon.training.dpsgd import train
from cordon.training.units import Units
from cordon.variants.features import FEATURES
from hostile import UPDATES

CLAIM = "claims 10^9 rows"
SHOWN = Guarantee("patient", DELTA, GAUSSIAN)


def egress(paths: Sequence[Path], rounds: int) -> dict[str, Any]:
    """The values beside the update that tell a site from the same one without its last patient."""
    seen = []
    for own in (paths, paths[:-1]):
        grid = Grid({"site": own})
        ask(grid, configured(ROWS, 1.0))
        seen.append(dict(grid.replies[0]["metrics"]))
    check = check_egress(plan_of(rounds), start(), Units.read(paths, unit="patient"), len(paths))
    differing = {
        name: [values[name] for values in seen] for name in seen[0] if seen[0][name] != seen[1][name]
    }
    return {"by_hand": differing, "cordon": {"passed": check.passed, "reason": check.reason, **check.figures}}


def restart(paths: Sequence[Path], rounds: int) -> dict[str, Any]:
    """A whole run, the site's process anew, and another run: what each says was spent at delta DELTA."""
    patients = samples_of(paths, "patient")
    noise = by_hand_app.noise_for(EPSILON, DELTA, patients, configured(PATIENTS, 0.0), messages=rounds)
    reported = []
    for _ in ("first", "second"):
        grid = Grid({"site": paths})  # a context without a state, as a SuperNode has that was started anew
        for _ in range(rounds):
            ask(grid, configured(PATIENTS, noise))
        reported.append(float(grid.replies[-1]["metrics"]["epsilon"]))
    steps, rate = steps_and_rate(patients, PATIENTS)
    spent = epsilon_rdp([Event(noise, rate, 2 * steps * rounds)], DELTA)
    return {"by_hand": {"reported": reported, "spent": spent}, "cordon": list(_two_runs(paths, rounds))}


def _two_runs(paths: Sequence[Path], rounds: int) -> Iterator[dict[str, Any]]:
    """What Cordon's site answers in two runs, its process anew for the second, and what its ledger holds."""
    plan, units = plan_of(rounds), Units.read(paths, unit="patient")
    with tempfile.TemporaryDirectory() as folder:
        for run in ("first", "second"):
            ledger = SiteLedger(Path(folder) / "site.sqlite", epsilon=EPSILON, delta=DELTA)
            site = Participant(
                Terms("site", len(paths)), lambda _: units, FEATURES, ledger=ledger, say=lambda line: None
            )  # fmt: skip
            answers = []
            for number in range(1, rounds + 1):
                content = Task(replace(plan, run=run), number, len(paths), start(), TIP).to_records()
                message: Any = SimpleNamespace(
                    content=content, metadata=SimpleNamespace(message_type="train")
                )
                answers.append(Reply.from_records(site.handle(message)).status)
            yield {"answers": answers, "ledger": ledger.spent()}


def hostile(cohort: Cohort, rounds: int) -> list[dict[str, Any]]:
    """What a dishonest first site makes of the mean by hand, and what Cordon's aggregator decides on it."""
    grid, plan = Grid(cohort.sites), plan_of(rounds).started()
    ask(grid, configured(PATIENTS, plan.noise_multiplier))
    sent = {
        Site(name, len(cohort.sites[name]), 1.0, f"key {name}"): train(
            plan.model, start(), units, plan.settings_for(len(cohort.sites[name]))
        ).update
        for name, units in cohort.units("patient").items()
    }  # fmt: skip
    found = []
    for name in ("honest", "scaled x100", "NaN", CLAIM):
        change = UPDATES.get(name, lambda update, _: update)
        cordon = {"decision": "cannot", "reason": "no message says it: weights are declared at enrolment"}
        if name != CLAIM:
            cordon = _judged(plan, sent, change)
        mean = _averaged(grid.replies, change, 10**9 if name == CLAIM else None)
        found.append({"first_site": name, "by_hand": mean, "cordon": cordon})
    return found


def _judged(plan: Plan, sent: Mapping[Site, Parameters], change: Callable[..., Parameters]) -> dict[str, str]:
    """Cordon's decision on the first site, whose update is changed."""
    first = next(iter(sent))
    updates = {**sent, first: change(sent[first], None)}
    answers = {
        site: (Reply(ReplyStatus.TRAINED, plan.run, 1, plan.event, own), "") for site, own in updates.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        log = ChainedLog(Path(folder) / "ledger.sqlite")
        decision = Auditor(plan, log, expected=start()).judge(1, answers)[0]
    return {"decision": decision.decision, "reason": decision.reason}


def _averaged(
    contents: Sequence[RecordDict], change: Callable[..., Any], claimed: int | None
) -> dict[str, float | None]:
    """FedAvg of the replies, the first one's arrays and count changed: the model's largest number, and its
    greatest distance from the first site's; None where it is not a number.
    """
    from flwr.serverapp.strategy import FedAvg

    arrays = [{name: array.numpy() for name, array in content["arrays"].items()} for content in contents]
    counts = [content["metrics"]["num-examples"] for content in contents]
    arrays[0], counts[0] = change(arrays[0], None), claimed or counts[0]
    replies = [
        Message(
            RecordDict(
                {
                    "arrays": ArrayRecord({name: Array(value) for name, value in own.items()}),
                    "metrics": MetricRecord({"num-examples": count}),
                }
            ),
            dst_node_id=1,
            message_type="train",
        )
        for own, count in zip(arrays, counts, strict=True)
    ]
    mean, _ = FedAvg().aggregate_train(1, replies)
    model = {name: array.numpy() for name, array in mean.items()}
    largest = np.max([np.abs(value).max() for value in model.values()])
    distance = np.max([np.abs(arrays[0][name] - value).max() for name, value in model.items()])
    if np.isnan(largest):
        return {"largest": None, "from_first_site": None}
    return {"largest": float(largest), "from_first_site": float(distance)}


def start() -> Parameters:
    return initial_parameters("logistic", len(FEATURES))


def ask(grid: Grid, config: ConfigRecord) -> None:
    """One round of training by hand from Cordon's start, without averaging."""
    arrays = ArrayRecord({name.removeprefix("0."): Array(value) for name, value in start().items()})
    content = RecordDict({"arrays": arrays, "config": config})
    nodes = grid.get_node_ids()
    grid.send_and_receive([Message(content, dst_node_id=node, message_type="train") for node in nodes])


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What was found, a line a fact; every epsilon with its unit, delta, mechanism and adjacency."""
    for name, (whole, less) in found["egress"]["by_hand"].items():
        yield f"egress, by hand: {name} is {whole:.6g} with all patients, {less:.6g} without one"
    yield f"egress, Cordon: {found['egress']['cordon']['reason']}"
    by_hand = found["restart"]["by_hand"]
    for number, value in enumerate(by_hand["reported"], start=1):
        yield f"restart, by hand: after run {number} reported {SHOWN.statement(value)}"
    yield f"restart, by hand: both runs spent {SHOWN.statement(by_hand['spent'])}"
    for number, run in enumerate(found["restart"]["cordon"], start=1):
        words = ", ".join(f"{run['answers'].count(word)} {word}" for word in dict.fromkeys(run["answers"]))
        yield f"restart, Cordon: run {number}: {words}; the ledger has {SHOWN.statement(run['ledger'])}"
    for row in found["hostile"]:
        mean, cordon = row["by_hand"], row["cordon"]
        by_hand = "the model is NaN"
        if mean["largest"] is not None:
            by_hand = (
                f"largest parameter {mean['largest']:.3g}, {mean['from_first_site']:.2g} from that site's"
            )
        words = f"{cordon['decision']} {cordon['reason']}".rstrip()
        yield f"hostile, {row['first_site']}: by hand, {by_hand}; Cordon: {words}"


@click.command()
@click.argument("tables", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--held_out", default=2, show_default=True, help="Last patients of each site.")
@click.option("--rounds", default=10, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def main(tables: tuple[Path, ...], held_out: int, rounds: int, as_json: bool) -> None:
    """Print what is sent beside the update, what is forgotten, and what is believed."""
    quiet()
    cohort = Cohort.read(tables, held_out)
    paths = next(iter(cohort.sites.values()))
    found = {
        "egress": egress(paths, rounds), "restart": restart(paths, rounds),
        "hostile": hostile(cohort, rounds),
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for line in lines(found):
        click.echo(line)


if __name__ == "__main__":
    main()
