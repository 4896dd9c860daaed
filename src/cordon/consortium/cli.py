"""`cordon consortium` and `cordon site`: from nothing to a run, by commands that say what is next."""

from __future__ import annotations

import shlex
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
            f"{shlex.join(['cordon', 'consortium', 'approve', str(place), 'SITE.request'])}",
        ],
    )


@consortium.command(short_help="Take in the site that a request is of.")
@folder_argument
@click.argument("request", type=EXISTING)
@click.option("--fingerprint", help="That of the site's key, as its owner told it by another way.")
@click.option("--replace", is_flag=True, help="Where the site is enrolled with another key or declaration.")
def approve(folder: str, request: str, fingerprint: str | None, replace: bool) -> Facts:
    """Take in the site that REQUEST is of; without --fingerprint, show what would be approved.

    Every change is a signed row of the aggregator's ledger. A site whose key is banned has to be released
    first, under whatever key it asks.
    """
    from cordon.consortium.operator import Operator
    from cordon.consortium.request import read_request

    operator, asked = Operator(Path(folder)), read_request(Path(request))
    operator.expect(asked)
    name, standing = asked.site.name, operator.standing(asked)
    values = {
        "site": name, "declared_patients": asked.site.declared_patients, "weight": asked.site.weight,
        "contact": asked.contact, "fingerprint": asked.paper.fingerprint, "standing": standing,
        "approved": bool(fingerprint),
    }  # fmt: skip
    shown = [*asked.lines, *(f"  {line}" for line in standing)]
    if fingerprint is None:
        ask = (
            "Nothing was changed. Ask the site for its key's fingerprint by a way that you knew before: what "
        )
        ask += "the file says of whom to ask may be anybody's. Then: "
        again = shlex.join(
            ["cordon", "consortium", "approve", folder, request, "--fingerprint", "FINGERPRINT"]
        )
        return Facts(values, [*shown, f"{ask}{again}{' --replace' if standing else ''}"])
    operator.approve(asked, fingerprint, replacing=replace)
    here = {site.name for site in operator.sites()}
    waiting = [other for other in operator.study.sites if other not in here]
    still = f"Still to come: {', '.join(waiting)}. " if waiting else ""
    after = shlex.join(["cordon", "plan", folder])
    return Facts(values, [*shown, f"{name} is enrolled. {still}Once two or more are here: {after}"])


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
    from cordon.errors import UserError

    operator = Operator(Path(folder))
    try:
        said = Path(policy).read_text(encoding="utf-8") if policy else ""
    except UnicodeDecodeError as error:
        raise UserError(f"{policy}: no text, so no policy. Give a policy.toml.") from error
    if policy and not said.strip():
        raise UserError(f"{policy}: is empty. Give a policy.toml, or leave --policy out for a certificate.")
    path = operator.write_kit(address, said)
    told, sites = operator.fingerprint, operator.sites()
    return Facts(
        {"kit": str(path), "sites": [site.name for site in sites], "fingerprint": told},
        [
            f"{path}: for {', '.join(site.name for site in sites)}, signed by {told}",
            f"Next: send it to every site, which joins by: cordon site join {path.name} --folder SITE "
            "--fingerprint FINGERPRINT, as you told it",
            f"Then start the aggregator: {shlex.join(['cordon', 'aggregator', 'run', folder])}",
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
@click.option("--again", is_flag=True, help="For the key that is there, which is kept.")
def init_site(
    name: str, patients: int, contact: str, weight: float, folder: str | None, again: bool
) -> Facts:
    """Make the key of the site NAME here, and a signed request for the operator."""
    from cordon.consortium.request import make_request, make_request_again
    from cordon.federation.credentials import private_identity

    place = Path(folder or name)
    path = (make_request_again if again else make_request)(place, name, patients, weight, contact)
    told = private_identity(place / "site.key")
    return Facts(
        {"site": name, "request": str(path), "fingerprint": told},
        [
            f"{path}: {patients} declared patients, weight {weight:g}; the key is {place / 'site.key'}, and "
            "never leaves this place",
            f"fingerprint of this site's key: {told}",
            "Next: send the request to the operator, who asks you for this fingerprint and tells you "
            "another. With the kit that you get: cordon site join KIT --folder "
            f"{shlex.quote(str(place))} --fingerprint THEIRS",
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
    start = f"nextflow run . -params-file {shlex.quote(str(parameters))} --input samplesheet.csv "
    start += "--reference GENOME.fasta"
    plan, study = found.plan.to_dict(), found.study.name
    return Facts(
        {"site": own.name, "study": study, "plan": plan, "parameters": str(parameters)},
        [
            *found.lines,
            f"You are {own.name}: {own.declared_patients} declared patients, weight {own.weight:g}",
            f"Next, with a profile of your machines: {start} --outdir results -profile slurm,singularity",
        ],
    )
