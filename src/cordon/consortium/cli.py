"""`cordon consortium` and `cordon site`: from nothing to a run, by commands that say what is next."""

from __future__ import annotations

from pathlib import Path

import click

from cordon.console.commands import EXISTING, EXISTING_FOLDER, FOLDER, Facts, Group
from cordon.transport.address import ADDRESS

folder_argument = click.argument("folder", type=EXISTING_FOLDER)


@click.group(cls=Group)
def consortium() -> None:
    """Begin a consortium, and take sites in (operator).

    All is in one folder: study.toml, the operator's key, the plan, and the aggregator's state.
    """


@consortium.command(name="init", short_help="Begin a consortium: its folder, study and key.")
@click.argument("name")
@click.option("--folder", type=FOLDER, help="Where it is kept.  [default: NAME]")
def init_consortium(name: str, folder: str | None) -> Facts:
    """Make the folder of the consortium NAME: study.toml to fill in, and the operator's key."""
    from cordon.consortium.operator import Operator

    place = Path(folder or name)
    told = Operator.begin(place, name).fingerprint
    return Facts(
        {"folder": str(place), "fingerprint": told},
        [
            f"{place}: study.toml to fill in, and the operator's key",
            f"fingerprint of the operator's key: {told}",
            "Next: fill in study.toml. Tell each hospital this fingerprint (by telephone, not beside the "
            "kit), and ask it for its request (cordon site init). Then: "
            f"cordon consortium approve {place} SITE.request",
        ],
    )


@consortium.command(short_help="Take in the site that a request is of.")
@folder_argument
@click.argument("request", type=EXISTING)
@click.option("--fingerprint", help="That of the site's key, as its owner told it by another way.")
def approve(folder: str, request: str, fingerprint: str | None) -> Facts:
    """Take in the site that REQUEST is of; without --fingerprint, show what would be approved.

    A site that is enrolled already gets the key and the declaration of the request. Every change is a signed
    row of the aggregator's ledger.
    """
    from cordon.consortium.operator import Operator
    from cordon.consortium.request import read_request

    operator, asked = Operator(Path(folder)), read_request(Path(request))
    operator.expect(asked)
    name = asked.site.name
    values = {
        "site": name, "declared_patients": asked.site.declared_patients, "weight": asked.site.weight,
        "contact": asked.contact, "fingerprint": asked.paper.fingerprint, "approved": bool(fingerprint),
    }  # fmt: skip
    if fingerprint is None:
        ask = f"Ask {asked.contact} for its key's fingerprint, by another way than this came, and give it"
        again = f"cordon consortium approve {folder} {request} --fingerprint FINGERPRINT"
        return Facts(values, [*asked.lines, f"Nothing was changed. {ask}: {again}"])
    operator.approve(asked, fingerprint)
    here = {site.name for site in operator.sites()}
    waiting = [other for other in operator.study.sites if other not in here]
    still = f"Still to come: {', '.join(waiting)}. " if waiting else ""
    return Facts(values, [*asked.lines, f"{name} is enrolled. {still}Next: cordon plan {folder}"])


@consortium.command(name="kit", short_help="Sign the kit that every site takes part with.")
@folder_argument
@click.option("--address", type=ADDRESS, required=True, metavar="HOST:PORT", help="Where sites find it.")
@click.option(
    "--policy", type=EXISTING, help="What the aggregator must attest (policy.toml).  [default: a certificate]"
)
def make_kit(folder: str, address: str, policy: str | None) -> Facts:
    """Sign NAME.kit: study, plan, sites with their keys, address, and how the aggregator is known.

    Without --policy a certificate for the address is made, with its key, for the aggregator.
    """
    from cordon.consortium.operator import Operator

    operator = Operator(Path(folder))
    path = operator.write_kit(address, Path(policy).read_text() if policy else "")
    told, sites = operator.fingerprint, operator.sites()
    return Facts(
        {"kit": str(path), "sites": [site.name for site in sites], "fingerprint": told},
        [
            f"{path}: for {', '.join(site.name for site in sites)}, signed by {told}",
            f"Next: send it to every site, which joins by: cordon site join {path.name} --folder SITE "
            "--fingerprint FINGERPRINT, as you told it",
            f"Then start the aggregator: cordon aggregator run {folder}",
        ],
    )


@click.group(cls=Group)
def site() -> None:
    """Ask to take part, and join (hospital).

    All is in one folder: the site's key, which never leaves it, and what the kit says.
    """


@site.command(name="init", short_help="Make the site's key and its request.")
@click.argument("name")
@click.option("--patients", required=True, type=click.IntRange(1), help="How many you declare, for good.")
@click.option("--contact", required=True, help="Whom to ask about this site: a name and an address.")
@click.option("--weight", default=1.0, show_default=True, help="Of its updates in the average; above 0.")
@click.option("--folder", type=FOLDER, help="Where it is kept.  [default: NAME]")
def init_site(name: str, patients: int, contact: str, weight: float, folder: str | None) -> Facts:
    """Make the key of the site NAME here, and a signed request for the operator."""
    from cordon.consortium.request import make_request
    from cordon.federation.credentials import private_identity

    place = Path(folder or name)
    path = make_request(place, name, patients, weight, contact)
    told = private_identity(place / "site.key")
    return Facts(
        {"site": name, "request": str(path), "fingerprint": told},
        [
            f"{path}: {patients} declared patients, weight {weight:g}; the key is {place / 'site.key'}, and "
            "never leaves this place",
            f"fingerprint of this site's key: {told}",
            "Next: send the request to the operator, who asks you for this fingerprint and tells you "
            f"another. With the kit that you get: cordon site join KIT --folder {place} --fingerprint THEIRS",
        ],
    )


@site.command(short_help="Check a kit, and make ready for the run.")
@click.argument("kit", type=EXISTING)
@click.option("--folder", type=EXISTING_FOLDER, required=True, help="Where `cordon site init` put the key.")
@click.option("--fingerprint", required=True, help="Of the operator's key, told by another way than the kit.")
def join(kit: str, folder: str, fingerprint: str) -> Facts:
    """Check that KIT is the operator's and has this site in it, show what is agreed on, and unpack it.

    run.yml names all of it to Nextflow.
    """
    from cordon.consortium.kit import read_kit, unpack

    found = read_kit(Path(kit), fingerprint)
    own = unpack(found, Path(folder))
    parameters = Path(folder) / "run.yml"
    start = f"nextflow run . -params-file {parameters} --input samplesheet.csv --reference GENOME.fasta"
    plan, study = found.plan.to_dict(), found.study.name
    return Facts(
        {"site": own.name, "study": study, "plan": plan, "parameters": str(parameters)},
        [
            *found.lines,
            f"You are {own.name}: {own.declared_patients} declared patients, weight {own.weight:g}",
            f"Next, with a profile of your machines: {start} --outdir results -profile slurm,singularity",
        ],
    )
