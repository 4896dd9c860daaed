#!/usr/bin/env python3
"""Make the keys of a consortium that runs on one machine: simulated consortia and tests."""

from pathlib import Path

import click

from cordon.commands import EXISTING, reports_errors


@click.command()
@click.option("--sites", required=True, type=EXISTING, help="Sites sheet: site, declared_patients, weight.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the aggregator will listen.")
@click.option("--port", default=0, show_default=True, type=int, help="Its port; 0 chooses a free one.")
@click.option("--outdir", required=True, type=click.Path(file_okay=False), help="Where the keys go.")
@reports_errors
def main(sites: str, host: str, port: int, outdir: str) -> None:
    """Make a certificate authority, the aggregator's TLS key and one identity for each site.

    In production every site makes its own key and the operator enrols its public half.
    """
    from cordon.federation.credentials import enrol
    from cordon.federation.flower import free_port
    from cordon.federation.plan import read_sites

    declared = read_sites(Path(sites))
    enrol(declared, host, Path(outdir))
    (Path(outdir) / "address.txt").write_text(f"{host}:{port or free_port(host)}\n")
    click.echo(f"enrolled {len(declared)} sites for {host}")


if __name__ == "__main__":
    main()
