"""`cordon relay`: a way out for sites that have none, on a node that has one."""

from __future__ import annotations

from pathlib import Path

import click

from cordon.console.commands import Facts, GivenPath, command, facts
from cordon.console.progress import say
from cordon.transport.address import ADDRESS


@command(short_help="Carry sites' connections out of a shared folder.")
@click.argument("folder", type=GivenPath(file_okay=False, path_type=Path))
@click.option(
    "--aggregator",
    type=ADDRESS,
    required=True,
    metavar="HOST:PORT",
    help="The one address that it connects to.",
)  # fmt: skip
def relay(folder: Path, aggregator: str) -> Facts:
    """Carry sites' connections from FOLDER to an aggregator, until a signal ends it.

    For sites that run with --transport files, on a node that sees their FOLDER and reaches the aggregator
    (through HTTPS_PROXY where that is set). It sees TLS alone and holds no key.
    """
    from cordon.transport.address import split_address
    from cordon.transport.relay import serve

    host, port = split_address(aggregator)
    moved = serve(folder, host, port, say)
    return facts("{folder}: {bytes:,} bytes moved", folder=folder, bytes=moved)


if __name__ == "__main__":
    relay()
