"""`cordon doctor`: is this site ready for its first run?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cordon import foreign
from cordon.console.commands import EXISTING, Facts, GivenPath, as_json, command
from cordon.doctor.finding import Finding, Health

if TYPE_CHECKING:
    from rich.text import Text

ANY_FILE = GivenPath(dir_okay=False, path_type=Path)
MARKS = {Health.OK: ("✓", "green"), Health.WARNING: ("!", "yellow"), Health.FAILED: ("✗", "red")}


@command(short_help="See what would stop a first run here.")
@click.option("--profile", default="", metavar="A,B", help="What the run will be given as -profile.")
@click.option("--site_config", metavar="FILE-OR-URL", help="The site's own configuration.")
@click.option("--reference", type=ANY_FILE, help="The reference genome (FASTA).")
@click.option("--state_dir", type=GivenPath(file_okay=False, path_type=Path), help="Where ledgers are kept.")
@click.option("--site_key", type=ANY_FILE, help="This site's private key.")
@click.option("--aggregator", metavar="HOST:PORT", help="The aggregator's address.")
@click.option("--aggregator_policy", type=EXISTING, help="The attestation that it must satisfy.")
@click.option("--aggregator_ca", type=EXISTING, help="Instead: its root certificate.")
def doctor(profile: str, site_config: str | None, reference: Path | None, state_dir: Path | None,
           site_key: Path | None, aggregator: str | None, aggregator_policy: str | None,
           aggregator_ca: str | None) -> Facts:  # fmt: skip
    """Check this site before its first run, and say what to do about what is missing.

    The options are the run's own parameters; what is not given is not checked. Run it where Nextflow will
    run, and in a job on a compute node too, from where the aggregator must be reached. Nothing of the site's
    is sent anywhere. Exit status 0, or 2 where something would stop a run.
    """
    from rich.console import Console

    from cordon.doctor import files, network, programs

    def findings() -> Iterator[Finding]:
        written = ""
        if site_config:
            written, unreadable = files.settings(site_config)
            yield from unreadable
        yield from programs.programs(profile, written)
        yield from files.site_config(written, profile)
        if reference is not None:
            yield files.reference(reference)
        if state_dir is not None:
            yield from files.state(state_dir)
        if site_key is not None:
            yield files.site_key(site_key)
        if aggregator is not None:
            policy, authority = (
                Path(given) if given else None for given in (aggregator_policy, aggregator_ca)
            )
            yield from network.aggregator(aggregator, policy=policy, authority=authority)

    console = Console(highlight=False, soft_wrap=True)
    found = []
    for finding in findings():
        found.append(finding)
        if not as_json():
            console.print(_line(finding))
    stops = sum(finding.status == Health.FAILED for finding in found)
    end = f"{stops} of {len(found)} would stop a run." if stops else "Nothing found that would stop a run."
    values = {"ready": not stops, "findings": [vars(finding) for finding in found]}
    return Facts(values, ["", end], exit_status=2 if stops else 0)


def _line(finding: Finding) -> Text:
    from rich.text import Text

    mark, colour = MARKS[finding.status]
    text = Text.assemble((mark, colour), f" {finding.what}: {foreign.lines(finding.found)}")
    if finding.remedy:
        text.append(f"\n    {finding.remedy}")
    return text
