"""`cordon aggregator run`: the aggregator of a consortium's next run, from the operator's folder alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cordon.console.commands import EXISTING, EXISTING_FOLDER, Facts, GivenPath, command
from cordon.console.progress import telling
from cordon.transport.address import ADDRESS, split_address

if TYPE_CHECKING:
    from cordon.federation.aggregator.record import Record
    from cordon.federation.plan import Plan
    from cordon.model.released import Model
    from cordon.training.pretrain import PublicStart


@command(name="run", short_help="Run the aggregator of a consortium's next run.")
@click.argument("folder", type=EXISTING_FOLDER)
@click.option("--listen", type=ADDRESS, metavar="HOST:PORT", help="Where.  [default: the kit's address]")
@click.option("--min_sites", default=2, show_default=True, type=click.IntRange(1), help="Quorum of a round.")
@click.option("--join_deadline", default=21600.0, show_default=True, help="Seconds to wait for the sites.")
@click.option("--round_deadline", default=600.0, show_default=True, help="Seconds to wait for a round.")
@click.option("--pretrained", type=EXISTING, help="The plan's start, where it is not the public one here.")
@click.option(
    "--evidence", default="", help="Attests the TLS key: guest, guest:VCEK or emulator:FOLDER (a test)."
)
@click.option(
    "--transport_dir",
    type=GivenPath(file_okay=False, path_type=Path),
    help="Serve sites that connect through this shared folder, too.",
)
def run_aggregator(
    folder: str, listen: str | None, min_sites: int, join_deadline: float, round_deadline: float,
    pretrained: str | None, evidence: str, transport_dir: Path | None,
) -> Facts:  # fmt: skip
    """Wait for the sites of FOLDER's kit, train the model with them, and write it to FOLDER/runs.

    A run that was cut off goes on with the same command. Only the plan that the last kit was signed with is
    run: sites have no other.
    """
    from cordon.consortium.operator import SERVER, STATE, Operator
    from cordon.errors import UserError
    from cordon.federation.aggregator.attendance import RoundLimits
    from cordon.federation.aggregator.run import RunSetup
    from cordon.federation.aggregator.service import Endpoint, serve
    from cordon.variants.features import FEATURES

    operator = Operator(Path(folder))
    kit = operator.kit()
    if bool(kit.policy) != bool(evidence):
        told = "promises an attested aggregator: give --evidence" if kit.policy else (
            "pins a certificate: leave --evidence out, or sign a kit with --policy"
        )  # fmt: skip
        raise UserError(f"the kit that sites have {told}. Nothing was started.")
    plan = kit.plan.started()
    host, port = split_address(listen or kit.address)
    files: list[Path] = []

    def save(model: Model, happened: Record) -> None:
        # A run that was cut off goes on under the name that it had.
        out = operator.folder / "runs" / happened.plan.run
        files[:] = out / "model.safetensors", out / "federation.json"
        out.mkdir(parents=True, exist_ok=True)
        model.save(files[0])
        files[1].write_text(json.dumps(happened.to_dict(), indent=2) + "\n")

    with operator.alone(), telling(None) as tell:
        tell.say(f"{len(kit.roster)} sites may take part: {', '.join(site.name for site, _ in kit.roster)}")
        limits = RoundLimits(min_sites, join_deadline, round_deadline)
        setup = RunSetup(plan, [], FEATURES, limits, _start(plan, pretrained))
        names = [split_address(kit.address)[0]]
        endpoint = Endpoint(host, port, operator.folder / SERVER, names, evidence, transport_dir)
        state, log = operator.folder / STATE, operator.folder / "log"
        tell.say("the aggregator starts: that takes up to a minute")
        model, _ = serve(setup, endpoint, state=state, workdir=log, say=tell.say, save=save)
    return Facts(
        {
            "model": str(files[0]),
            "record": str(files[1]),
            "model_hash": model.hash,
            "run": files[0].parent.name,
        },
        [
            f"{files[0]}: model {model.hash} after {model.privacy['rounds']} rounds",
            f"{files[1]}: what happened. Each site has the model, too. Next run: cordon plan {folder}",
        ],
    )


def _start(plan: Plan, pretrained: str | None) -> PublicStart | None:
    """The public model that the plan starts from, with held-out alleles where it is the one that ships."""
    from cordon.consortium.plan_cli import SHIPPED
    from cordon.errors import UserError
    from cordon.training.pretrain import PublicStart, public_rows, read_public

    if not plan.start:
        return None
    shipped = SHIPPED / f"{plan.model}.safetensors"
    given = Path(pretrained) if pretrained else shipped
    if not given.exists() or (model := read_public(given)).hash != plan.start:
        raise UserError(
            f"the plan starts from the public model {plan.start[:12]}, and {given} is not it. Give it with "
            "--pretrained."
        )
    rows = public_rows([SHIPPED / "held_out.parquet"], plan.model) if given == shipped else None
    return PublicStart(model, rows)
