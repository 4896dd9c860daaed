#!/usr/bin/env python3
"""Agree on a run: its public plan, and the keys of a consortium that runs on one machine."""

import json
from pathlib import Path
from typing import Any

import click

from cordon.console.commands import EXISTING, FOLDER, Facts, command
from cordon.federation.averaging import MEAN, RULES
from cordon.model.architectures import ARCHITECTURES
from cordon.privacy.accountants import ACCOUNTANTS
from cordon.privacy.events import GAUSSIAN, LAPLACE
from cordon.privacy.grouping import UNITS
from cordon.training.settings import CLIPPINGS, OPTIMISERS

NOISES = {"gaussian": GAUSSIAN, "laplace": LAPLACE}


@command()
@click.option("--sites", required=True, type=EXISTING, help="Sites sheet: site, declared_patients, weight.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the aggregator will listen.")
@click.option("--port", default=0, show_default=True, type=int, help="Its port; 0 chooses a free one.")
@click.option(
    "--state",
    required=True,
    type=FOLDER,
    help="Outlives runs: keys found there are kept, and what its ledgers say was spent is counted.",
)
@click.option(
    "--ledger",
    "ledgers",
    multiple=True,
    type=EXISTING,
    help="Counted as well: the aggregator's ledger, where it is kept elsewhere; repeatable.",
)
@click.option("--outdir", required=True, type=FOLDER, help="Where plan.json, address.txt and the keys go.")
@click.option("--model", type=click.Choice(ARCHITECTURES), default="mlp", show_default=True, help="Its kind.")
@click.option(
    "--unit", type=click.Choice(UNITS), default="patient", show_default=True, help="What privacy protects."
)
@click.option("--epsilon", required=True, type=float, help="Budget over all runs.")
@click.option("--run_epsilon", type=float, help="What this run may cost.  [default: what is left]")
@click.option(
    "--accountant",
    type=click.Choice(ACCOUNTANTS),
    default="rdp",
    show_default=True,
    help="What budgets are held against.",
)
@click.option("--delta", required=True, type=float, help="Of that budget.")
@click.option(
    "--sites_per_patient",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Sites that one person may be a patient at: the budget counts them all.",
)
@click.option("--rounds", type=click.IntRange(1), help="Of training.  [default: 5 from a start, else 20]")
@click.option("--local_steps", type=click.IntRange(1), help="DP-SGD steps a round.  [default: 20]")
@click.option("--sampling_rate", required=True, type=float, help="Probability that a unit is in a step.")
@click.option(
    "--mechanism", type=click.Choice(tuple(NOISES)), default="gaussian", show_default=True, help="The noise."
)
@click.option(
    "--clipping",
    type=click.Choice(CLIPPINGS),
    default="fixed",
    show_default=True,
    help="How the clip norm is set.",
)
@click.option(
    "--clip_norm",
    type=float,
    help="Norm that a unit's gradient is clipped to.  [default: 0.05 for a patient, 2 for a variant]",
)
@click.option(
    "--clip_quantile", default=0.9, show_default=True, help="Share of norms below the clip norm, if adaptive."
)
@click.option(
    "--per_layer", default=False, show_default=True, help="Clip each layer to its part (true/false)."
)
@click.option(
    "--optimiser", type=click.Choice(OPTIMISERS), default="sgd", show_default=True, help="Of the local steps."
)
@click.option(
    "--learning_rate", type=float, help="Of the local steps.  [default: as large as the noise allows]"
)
@click.option("--momentum", default=0.0, show_default=True, help="Of the local steps.")
@click.option(
    "--averaged_rounds",
    type=click.IntRange(1),
    help="The model is the mean of those after so many last rounds.  [default: half of them]",
)
@click.option(
    "--aggregation",
    type=click.Choice(tuple(RULES)),
    default=MEAN,
    show_default=True,
    help="How updates are combined.",
)
@click.option(
    "--malicious_sites",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Malicious sites that the aggregation bears.",
)
@click.option(
    "--max_variants_per_patient",
    required=True,
    type=click.IntRange(1),
    help="The most that a step takes of one.",
)
@click.option(
    "--evidence",
    type=click.Choice(("guest", "emulator")),
    help="What will attest the aggregator's key; it then makes its own, and sites get no certificate.",
)
@click.option(
    "--calibration_epsilon",
    default=0.0,
    show_default=True,
    help="Of the budget, left to each site for a private calibration of the model.",
)
@click.option("--pretrained", type=EXISTING, help="Public model to start from (cordon pretrain).")
def main(
    sites: str, host: str, port: int, state: str, outdir: str, mechanism: str, pretrained: str | None,
    evidence: str | None, calibration_epsilon: float, ledgers: tuple[str, ...], **settings: Any,
) -> Facts:  # fmt: skip
    """Calibrate the noise to what is left of the budget, and make the keys.

    These are a certificate authority, a TLS key and an identity a site.

    In production every site makes its own key and the operator enrols its public half. An emulator,
    TEST ONLY, comes with the policy that it satisfies.
    """
    from cordon.attestation.emulator import Emulator
    from cordon.federation.credentials import enrol
    from cordon.federation.flower.processes import free_port
    from cordon.federation.plan import read_sites
    from cordon.federation.planning import make_plan
    from cordon.federation.remaining import accounts, ledgers_in
    from cordon.scoring.private_calibration import calibration_event
    from cordon.training.pretrain import public_start

    declared = read_sites(Path(sites))
    if pretrained:
        settings |= public_start(Path(pretrained))
    beside = []
    if calibration_epsilon:
        terms = {name: settings[name] for name in ("delta", "accountant", "unit")}
        sites_of_one = settings["sites_per_patient"]
        beside = [calibration_event(epsilon=calibration_epsilon, sites_per_patient=sites_of_one, **terms)]
    spent = accounts(declared, [*ledgers_in(Path(state)), *map(Path, ledgers)])
    made = make_plan(declared, spent, settings | {"mechanism": NOISES[mechanism]}, beside=beside)
    for warning in made.warnings:
        click.echo(warning, err=True)
    enrol(declared, None if evidence else host, state=Path(state) / "keys", outdir=Path(outdir))
    if evidence == "emulator":
        emulator = Emulator.at(Path(outdir) / "aggregator" / "emulator")
        for site in declared:
            emulator.write_policy(Path(outdir) / "sites" / site.name / "policy.toml")
    plan = made.plan.to_dict()
    (Path(outdir) / "plan.json").write_text(json.dumps(plan, indent=2) + "\n")
    address = f"{host}:{port or free_port(host)}"
    (Path(outdir) / "address.txt").write_text(f"{address}\n")
    names = [site.name for site in declared]
    found = {"sites": names, "address": address, "plan": plan, "at_more_sites": made.more}
    return Facts(found, made.lines)


if __name__ == "__main__":
    main()
