"""A Slurm's nodes, queues and accounts, against what a site's file asks for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cordon.doctor.finding import Finding, failed, ok, warning

# States in which a node takes jobs, or will when those that it has are over (sinfo(1), NODE STATE CODES).
WORKING = ("allocated", "completing", "idle", "mixed", "planned", "reserved")
LONGEST_HOURS = 24.0  # of a label in conf/base.config
# Where a configuration names a queue: as such, or among a scheduler's own options.
QUEUE = r"\bqueue\s*[= ]\s*\{?\s*['\"]([^'\"$]+)['\"]|(?:--partition[= ]|(?<=['\" ])-p *)([\w.,-]+)"
TIME_LIMIT = r"resourceLimits\s*=\s*\[[^\]]*\btime\s*:\s*['\"]?([\d.]+?)[. ]?(d|h|m)\w*\b"
HOURS = {"d": 24.0, "h": 1.0, "m": 1 / 60}


@dataclass(frozen=True)
class Partition:
    """A line of `sinfo`: ``nodes`` of a partition in one state; ``hours`` is its limit, None for none.

    ``default``: jobs that name no partition go there; ``up``: it takes jobs at all.
    """

    name: str
    state: str
    nodes: int
    hours: float | None
    default: bool
    up: bool

    @property
    def works(self) -> bool:
        """A trailing * is a node that does not answer; other marks are of power and plans."""
        return self.up and not self.state.endswith("*") and self.state.rstrip("~#!%$@^-+") in WORKING


def slurm(written: str, sinfo: Sequence[str], accounts: Sequence[str]) -> Iterator[Finding]:
    """Findings about a Slurm whose ``sinfo --format=%P|%T|%D|%l|%a`` printed these lines.

    ``written`` is the text of the site's file, or nothing; ``accounts`` are those that Slurm's accounting
    tells of, none where there is no accounting.
    """
    partitions = [_partition(line) for line in sinfo if line.count("|") == 4]
    states = Counter[str]()
    for partition in partitions:
        states[partition.state if partition.up else f"in {partition.name}, which is down"] += partition.nodes
    told = ", ".join(f"{nodes} {state}" for state, nodes in sorted(states.items()))
    remedy = "`sinfo --list-reasons` tells why; ask the cluster's administrators."
    working = [partition for partition in partitions if partition.works]
    if not working:
        yield failed("nodes", f"none takes a job: {told or 'there are none'}", remedy)
    elif len(working) < len(partitions):
        yield warning("nodes", f"some take no job: {told}", remedy)
    else:
        yield ok("nodes", told)
    names = {partition.name for partition in partitions}
    asked = {name for found in re.findall(QUEUE, written) for queue in found for name in queue.split(",")}
    asked = asked - {""} or {partition.name for partition in partitions if partition.default}
    for name in sorted(asked):
        yield from _queue(name, names, working, _longest(written))
    yield from _accounts(written, accounts)


def _partition(line: str) -> Partition:
    name, state, nodes, limit, available = line.strip().split("|")
    return Partition(
        name.rstrip("*"), state, int(nodes), _hours(limit), name.endswith("*"), available == "up"
    )  # fmt: skip


def _longest(written: str) -> float:
    """The hours that the longest job asks for, with the limit that ``written`` sets."""
    limits = [float(number) * HOURS[unit] for number, unit in re.findall(TIME_LIMIT, written)]
    return min([LONGEST_HOURS, *limits])


def _hours(limit: str) -> float | None:
    """Slurm's [days-]hours:minutes:seconds, or minutes:seconds, in hours; None where there is no limit."""
    if limit in ("infinite", "n/a", "UNLIMITED"):
        return None
    days, _, rest = limit.rpartition("-")
    parts = [float(part) for part in rest.split(":")]
    hours, minutes, seconds = [0.0] * (3 - len(parts)) + parts
    return float(days or 0) * 24 + hours + minutes / 60 + seconds / 3600


def _queue(
    name: str, names: set[str], working: Sequence[Partition], longest: float
) -> Iterator[Finding]:  # fmt: skip
    what = f"queue {name}"
    if name not in names:
        yield failed(what, "is no partition of this Slurm", f"Choose one of {', '.join(sorted(names))}.")
        return
    limits = [partition.hours for partition in working if partition.name == name]
    if not limits:
        yield failed(what, "has no node that takes a job", "Choose another, or have its nodes resumed.")
    elif limits[0] is not None and limits[0] < longest:
        found = f"takes jobs of {limits[0]:g} hours at most; aggregator and sites ask for {longest:g}"
        remedy = f"Give process_federation a longer queue, or set resourceLimits = [time: {limits[0]:g}.h]."
        yield failed(what, found, remedy)
    else:
        yield ok(what, "takes jobs")


def _accounts(written: str, known: Sequence[str]) -> Iterator[Finding]:
    """Accounts that a job may not be charged to, where Slurm's accounting tells of any."""
    for name in sorted(set(re.findall(r"(?:--account[= ]|(?<=['\" ])-A *)([\w.-]+)", written))):
        if known and name not in known:
            choice = ", ".join(sorted({*known}))
            yield failed(f"account {name}", "is none of Slurm's", f"Choose one of {choice}.")
