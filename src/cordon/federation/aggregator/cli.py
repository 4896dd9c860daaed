"""`cordon aggregator`: who may take part, for the operator of an aggregator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cordon.console.commands import EXISTING, FOLDER, Facts, Group, facts

if TYPE_CHECKING:
    from cordon.federation.aggregator.registry import Registry

state_option = click.option("--state", required=True, type=FOLDER, help="The aggregator's state folder.")
reason_option = click.option("--reason", required=True, help="Why; it stands in the ledger.")


@click.group(cls=Group)
def aggregator() -> None:
    """Run an aggregator; enrol, ban and release sites.

    Every change is a signed row of the ledger in the state folder. Bans and releases hold from the next round
    on, enrolments from the next run on.
    """


@aggregator.command()
@state_option
@click.option("--site", required=True, help="Its name: letters, digits, _ . and -.")
@click.option(
    "--declared_patients", required=True, type=click.IntRange(1), help="How many its owner declares."
)
@click.option(
    "--weight", default=1.0, show_default=True, help="Weight of its updates in the average; above 0."
)
@click.option("--key", required=True, type=EXISTING, help="Its public key, ECDSA P-384 (PEM or OpenSSH).")
def enrol(state: str, site: str, declared_patients: int, weight: float, key: str) -> Facts:
    """Take a site in, or change what it declared or its key.

    The site makes its key with: ssh-keygen -t ecdsa -b 384 -N '' -f site.key
    """
    from cordon.federation.credentials import public_pem
    from cordon.federation.plan import declared_site

    declared = declared_site(site, declared_patients, weight, public_pem(Path(key)))
    _registry(state).enrol(declared)
    told = "{site} is enrolled with {declared_patients} declared patients and weight {weight:g}"
    return facts(told, site=site, declared_patients=declared_patients, weight=weight)


@aggregator.command(name="list")
@state_option
def list_(state: str) -> Facts:
    """Show who is enrolled, with offences and bans."""
    rows = [
        {
            "site": member.site.name, "identity": member.identity, "weight": member.site.weight,
            "declared_patients": member.site.declared_patients, "offences": member.offences,
            "banned": member.banned, "current": member.current,
        }
        for member in _registry(state).members()
    ]  # fmt: skip
    return Facts({"sites": rows}, map(_member, rows))


def _member(row: dict[str, Any]) -> str:
    standing = f"banned: {row['banned']}" if row["banned"] else f"{row['offences']} offences"
    if not row["current"]:
        standing = f"replaced by another key, {standing}"
    return (
        f"{row['site']}  key {row['identity'][:12]}  {row['declared_patients']} patients  "
        f"weight {row['weight']:g}  {standing}"
    )


@aggregator.command(short_help="Refuse a site until it is released.")
@state_option
@click.argument("site")
@reason_option
def ban(state: str, site: str, reason: str) -> Facts:
    """Refuse SITE (its name or its identity) in every run until it is released."""
    _registry(state).ban(site, reason)
    return facts("{site} is banned", site=site, reason=reason)


@aggregator.command(short_help="Let a site that was banned take part again.")
@state_option
@click.argument("site")
@reason_option
def release(state: str, site: str, reason: str) -> Facts:
    """Let SITE (its name or its identity), which was banned, take part again."""
    _registry(state).release(site, reason)
    return facts("{site} may take part again", site=site, reason=reason)


def _registry(state: str) -> Registry:
    from cordon.federation.aggregator.registry import Registry
    from cordon.ledger.log import ChainedLog

    return Registry(ChainedLog(Path(state) / "ledger.sqlite"))
