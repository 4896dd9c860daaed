#!/usr/bin/env python3
"""How long a federation's rounds take, with Flower's own waiting and with ours, in turns.

    python benchmarks/rounds.py --sites 3 --rounds 10 --repeats 3

A real SuperLink behind its gate, real SuperNodes, and a model so small that a round is all waiting and
messages. The aggregator and each site are processes of their own, as in a run.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

import click

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
sys.path.insert(0, str(HERE.parent / "tests" / "labs"))

from consortium import Consortium, plan  # noqa: E402

WAITING = {"Flower's": {"PYTHONPATH": str(HERE / "flowers_pace")}, "Cordon's": {}}


def seconds(names: list[str], rounds: int, environment: dict[str, str]) -> list[float]:
    """How long each round of one federation took, but for the first, in which sites make ready."""
    with tempfile.TemporaryDirectory() as temporary:
        consortium = Consortium(Path(temporary), names)
        try:
            aggregator = consortium.start_aggregator(plan(rounds), environment=environment)
            for name in names:
                consortium.start(name, environment=environment)
            if aggregator.wait() != 0:
                raise click.ClickException((Path(temporary) / "work" / "log").read_text())
            record = json.loads((Path(temporary) / "work" / "federation.json").read_text())
        finally:
            consortium.stop()
    return [row["seconds"] for row in record["rounds"][1:]]


@click.command()
@click.option("--sites", default=3, show_default=True)
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(2))
@click.option("--repeats", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(sites: int, rounds: int, repeats: int, as_json: bool) -> None:
    """Print the median seconds of a round with each kind of waiting, and their ratio."""
    names = [f"site{number}" for number in range(1, sites + 1)]
    taken: dict[str, list[float]] = {waiting: [] for waiting in WAITING}
    for _ in range(repeats):
        for waiting, environment in WAITING.items():
            taken[waiting] += seconds(names, rounds, environment)
    medians = {waiting: statistics.median(each) for waiting, each in taken.items()}
    ratio = medians["Flower's"] / medians["Cordon's"]
    if as_json:
        click.echo(json.dumps({"seconds": medians, "ratio": ratio}))
        return
    for waiting, median in medians.items():
        click.echo(f"{waiting} waiting: {median:.2f} s a round")
    click.echo(f"Rounds are {ratio:.1f} times as fast.")


if __name__ == "__main__":
    main()
