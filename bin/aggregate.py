#!/usr/bin/env python3
"""Run the aggregator of one federated run: SuperLink, audit, averaging."""

import json
from pathlib import Path

import click

from cordon.commands import OUTPUT, progress, reports_errors
from cordon.federation.plan import new_run_name
from cordon.model import ARCHITECTURES

FOLDER = click.Path(exists=True, file_okay=False)


@click.command()
@click.option(
    "--credentials", required=True, type=FOLDER, help="ca.crt, server.crt, server.key, enrolment.json."
)
@click.option("--address", required=True, help="host:port to listen on.")
@click.option("--run", "run_name", default=new_run_name, help="Name of the run; by default a new one.")
@click.option("--model", type=click.Choice(ARCHITECTURES), default="mlp", show_default=True)
@click.option("--unit", type=click.Choice(["patient", "variant"]), default="patient", show_default=True)
@click.option("--epsilon", required=True, type=float, help="Budget of each site, over all runs.")
@click.option("--delta", required=True, type=float)
@click.option("--rounds", required=True, type=click.IntRange(1))
@click.option("--local_steps", required=True, type=click.IntRange(1), help="DP-SGD steps a round.")
@click.option("--sampling_rate", required=True, type=float, help="Probability that a unit is in a step.")
@click.option("--clip_norm", required=True, type=float, help="L2 norm that a unit's gradient is clipped to.")
@click.option("--learning_rate", required=True, type=float)
@click.option("--max_variants_per_patient", required=True, type=click.IntRange(1))
@click.option("--min_sites", default=2, show_default=True, type=click.IntRange(1), help="Quorum of a round.")
@click.option("--join_deadline", default=600.0, show_default=True, help="Seconds to wait for the sites.")
@click.option("--round_deadline", default=300.0, show_default=True, help="Seconds to wait for a round.")
@click.option("--state", required=True, type=click.Path(file_okay=False), help="Outlives runs: the ledger.")
@click.option("--progress", "progress_file", type=OUTPUT, help="Progress lines also go here.")
@click.option("--output", required=True, type=OUTPUT, help="The model (safetensors).")
@click.option("--record", required=True, type=OUTPUT, help="What happened (federation.json).")
@reports_errors
def main(credentials: str, address: str, state: str, output: str, record: str, run_name: str, unit: str,
         min_sites: int, join_deadline: float, round_deadline: float, progress_file: str | None,
         **settings: object) -> None:  # fmt: skip
    """Wait for the enrolled sites, train the model with them and write it."""
    from cordon.features import FEATURES
    from cordon.federation.aggregator import Limits, serve
    from cordon.federation.plan import Plan, read_enrolment

    plan = Plan.calibrated(run=run_name, unit=unit, **settings)
    sites = read_enrolment(Path(credentials) / "enrolment.json")
    host, port = address.rsplit(":", 1)
    limits = Limits(min_sites, join_deadline, round_deadline)
    with progress(progress_file) as say:
        model, happened = serve(
            plan, sites, FEATURES, credentials=Path(credentials), host=host, port=int(port),
            state=Path(state), workdir=Path("flower"), limits=limits, say=say,
        )  # fmt: skip
        say(f"model {model.hash[:12]} after {plan.rounds} rounds")
    model.save(Path(output))
    Path(record).write_text(json.dumps(happened.to_dict(), indent=2) + "\n")


if __name__ == "__main__":
    main()
