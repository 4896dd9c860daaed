#!/usr/bin/env python3
"""Take part in a federated run with this site's labelled variants."""

import json
from pathlib import Path

import click

from cordon.console.commands import EXISTING, FOLDER, OUTPUT, Facts, GivenPath, command
from cordon.console.progress import telling
from cordon.privacy.accountants import ACCOUNTANTS
from cordon.transport.address import ADDRESS

SHARED = GivenPath(file_okay=False, path_type=Path)


@command()
@click.option("--site", required=True, help="This site's name in the sites sheet.")
@click.option("--sites", required=True, type=EXISTING, help="Sites sheet: site, declared_patients, weight.")
@click.option(
    "--variants", required=True, multiple=True, type=EXISTING, help="Labelled variants; repeatable."
)
@click.option("--address", type=ADDRESS, required=True, metavar="HOST:PORT", help="The aggregator's address.")
@click.option("--certificate", type=EXISTING, help="The aggregator's root certificate.")
@click.option("--policy", type=EXISTING, help="Instead: the attestation that it must satisfy (policy.toml).")
@click.option("--key", required=True, type=EXISTING, help="This site's private key.")
@click.option("--epsilon", required=True, type=float, help="A patient's budget here, over all runs.")
@click.option("--run_epsilon", type=float, help="The most that a run may cost; a plan above it is refused.")
@click.option("--delta", required=True, type=float, help="Of that budget.")
@click.option(
    "--accountant",
    type=click.Choice(ACCOUNTANTS),
    help="What that budget is held against; a plan by another is refused.  [default: the plan's]",
)
@click.option(
    "--privacy_unit",
    type=click.Choice(("patient", "variant")),
    default="patient",
    show_default=True,
    help="What that budget protects; a plan of another unit is refused.",
)
@click.option(
    "--sites_per_patient",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Sites that one person may be a patient at; a plan that counts fewer is refused.",
)
@click.option(
    "--same_person",
    type=click.Choice(("warn", "merge")),
    default="warn",
    show_default=True,
    help="What to do where two patients seem to be one person: say so, or make their rows one unit, too.",
)
@click.option("--state", required=True, type=FOLDER, help="Outlives runs: the ledger.")
@click.option("--plan", "plan_file", type=EXISTING, help="The plan agreed on; any other is refused.")
@click.option("--join_deadline", default=600.0, show_default=True, help="Longest silence (seconds).")
@click.option("--walltime", default=0.0, help="Seconds that this task has; it leaves before (0: no limit).")
@click.option("--transport_dir", type=SHARED, help="Connect through this shared folder, and nothing else.")
@click.option("--progress", "progress_file", type=OUTPUT, help="Progress lines also go here.")
@click.option("--output", required=True, type=OUTPUT, help="The final model (safetensors).")
@click.option("--status", required=True, type=OUTPUT, help="What this site spent (JSON).")
def main(site: str, sites: str, variants: tuple[str, ...], address: str, certificate: str | None,
         policy: str | None, key: str, epsilon: float, run_epsilon: float | None, delta: float,
         accountant: str | None,
         privacy_unit: str, sites_per_patient: int, same_person: str, state: str, plan_file: str | None,
         join_deadline: float, walltime: float, transport_dir: Path | None,
         progress_file: str | None, output: str, status: str) -> Facts:  # fmt: skip
    """Train on this site's variants under its own ledger, and write the model that comes of it."""
    from cordon.auditing.self_test import SelfTest
    from cordon.federation.aggregator.record import spent_by
    from cordon.federation.plan import find_site, read_plan
    from cordon.federation.site.participate import Participant, reading
    from cordon.federation.site.terms import Terms
    from cordon.federation.site.visit import Connection, join
    from cordon.federation.site.walltime import Stay
    from cordon.ledger.site import SiteLedger
    from cordon.privacy.guarantee import LIFETIME, RUN, Guarantee
    from cordon.privacy.several_sites import told as several_sites
    from cordon.variants.features import FEATURES
    from cordon.variants.same_person import MERGE, same_people

    trusted, required = (Path(given) if given else None for given in (certificate, policy))
    connection = Connection(address, Path(key), trusted, required, transport_dir)
    stay = Stay(walltime)
    workdir, tables = Path("flower"), [Path(path) for path in variants]
    ledger = SiteLedger(Path(state) / f"{site}.sqlite", epsilon=epsilon, delta=delta)
    with telling(progress_file) as tell:
        # Before anything connects, so that no answer's time tells of it.
        ids: dict[str, str] = {}
        if privacy_unit == "patient":
            ids = same_people(tables, merge=same_person == MERGE, say=tell.say, steps=tell.steps)

        terms = Terms(
            site,
            find_site(Path(sites), site).declared_patients,
            unit=privacy_unit,
            accountant=accountant,
            run_epsilon=run_epsilon,
            sites_per_patient=sites_per_patient,
            agreed=read_plan(Path(plan_file)) if plan_file else None,
        )
        test = SelfTest(ledger, tell.say)
        participant = Participant(
            terms, reading(tables, ids), FEATURES, ledger=ledger, say=tell.say, test=test
        )
        model = join(
            participant, connection, workdir=workdir, join_deadline=join_deadline, say=tell.say, stay=stay
        )
    model.save(Path(output))
    assert participant.outcome is not None
    plan = participant.outcome.plan
    spent = spent_by(site, ledger, plan)
    about = {"privacy": model.privacy, "model_hash": model.hash, "plan": plan.to_dict()}
    Path(status).write_text(json.dumps(spent | about, indent=2) + "\n")
    of_all, of_run = (
        Guarantee(plan.unit, delta, spent[f"{of}mechanism"], scope).by_both(
            spent[f"{of}epsilon_rdp"], spent[f"{of}epsilon_pld"])
        for scope, of in ((LIFETIME, ""), (RUN, "run_"))
    )  # fmt: skip
    told = (
        f"{output}: model {model.hash}; of {site}'s patients, whoever spent most spent {of_all}, of a "
        f"lifetime's {epsilon:g}; in this run {of_run}"
    )
    return Facts(spent | about, [told, several_sites(spent["at_more_sites"])])


if __name__ == "__main__":
    main()
