"""The aggregator as one process: the gate, the SuperLink behind it, and a run on them that outlives both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from cordon.console.progress import Say
from cordon.errors import UserError
from cordon.federation.aggregator.checkpoint import Checkpoints
from cordon.federation.aggregator.exchange import Exchange
from cordon.federation.aggregator.record import Record
from cordon.federation.aggregator.registry import Registry
from cordon.federation.aggregator.run import Aggregation, RunSetup
from cordon.federation.flower import processes, tasks
from cordon.federation.flower.bounds import Bound
from cordon.federation.flower.tasks import LinkLost
from cordon.federation.gate.start import gated_superlink
from cordon.federation.plan import write_enrolment
from cordon.ledger.log import ChainedLog
from cordon.model.released import Model

# So often are the SuperLink and the gate started again without a round in between.
MOST_RESTARTS = 3


@dataclass(frozen=True)
class Endpoint:
    """Where sites reach the aggregator: its gate listens at ``host:port``.

    ``credentials`` is the folder of what it shows (``server.crt``, ``server.key``); without them it makes its
    own, which ``evidence`` attests, for ``names`` or else the host (`cordon.federation.gate.start`). With
    ``transport``, a relay serves the sites that connect through that folder.
    """

    host: str
    port: int
    credentials: Path
    names: Sequence[str] = ()
    evidence: str = ""
    transport: Path | None = None


def serve(
    setup: RunSetup,
    endpoint: Endpoint,
    *,
    state: Path,
    workdir: Path,
    say: Say,
    save: Callable[[Model, Record], None] = lambda model, record: None,
) -> tuple[Model, Record]:
    """Run a gate at ``endpoint``, a SuperLink behind it, and one aggregation on it, from start to end.

    The setup's sites are enrolled, where they are not yet; none: those that are enrolled take part.
    ``state`` outlives runs and holds the aggregator's ledger and an unfinished run, which goes on;
    ``workdir`` holds this run's logs. ``save`` puts the result where it shall be: whoever dies before that
    is done finds the run as it was before its end.
    """
    setup.plan.check_expiry()
    workdir.mkdir(mode=0o700, parents=True, exist_ok=True)
    ledger = ChainedLog(state / "ledger.sqlite")
    registry = Registry(ledger)
    registry.enrol(*setup.sites)
    sites = list(setup.sites) or [member.site for member in registry.members() if member.current]
    if not sites:
        raise UserError(f"no site is enrolled in {ledger.path}. Enrol each with cordon aggregator enrol.")
    for site in sites:
        if warning := setup.plan.check_delta(site.name, site.declared_patients):
            say(warning)
    setup, host, port = replace(setup, sites=sites), endpoint.host, endpoint.port
    write_enrolment(sites, enrolment := workdir / "enrolment.json")
    checkpoints = Checkpoints(state, ledger)
    restarts = 0
    while True:
        aggregation = Aggregation(setup, ledger=ledger, checkpoints=checkpoints, say=say)
        model, answers = None, Bound.of(array.nbytes for array in aggregation.parameters.values())
        before = len(aggregation.record.rounds)
        try:
            with (
                gated_superlink(
                    endpoint.credentials, host, port, workdir, enrolment=enrolment,
                    evidence=endpoint.evidence, names=endpoint.names,
                    keys=[site.public_key for site in sites], answers=answers,
                ) as link,
                processes.relay(endpoint.transport, host, port, link, workdir),
                tasks.noticing_loss(link.alive, httpx.HTTPError),
            ):  # fmt: skip
                say(f"the aggregator listens on {host}:{port}")
                tasks.start_run(link)
                with tasks.server_task(link) as grid:
                    exchange = Exchange(grid, sites, link.alive)
                    tasks.await_replies(grid, exchange.late, answers)
                    model = aggregation.run(exchange)
                    save(model, aggregation.record)
                    checkpoints.discard()
        except LinkLost as error:
            if model is not None:
                return model, aggregation.record
            restarts = 0 if len(aggregation.record.rounds) > before else restarts + 1
            if restarts > MOST_RESTARTS:
                raise
            say(f"{error}; starting them again")
        else:
            return model, aggregation.record
