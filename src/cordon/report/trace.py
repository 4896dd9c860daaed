"""What each process of a run took, from Nextflow's trace."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from cordon.errors import UserError
from cordon.report.reading import text_of
from cordon.report.sources import Usage


def read_trace(path: Path) -> list[Usage]:
    """The trace (tab-separated, raw numbers) by process, the slowest first; UserError where it is none."""
    by_process: dict[str, list[Mapping[str, str]]] = {}
    try:
        for task in csv.DictReader(text_of(path).splitlines(), delimiter="\t"):
            process = task["name"].partition(" (")[0].rpartition(":")[2]
            by_process.setdefault(process, []).append(task)
        usages = [_usage(process, tasks) for process, tasks in by_process.items()]
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path}: not a trace with raw numbers ({error}). Leave trace.raw and trace.fields as they are."
        ) from error
    return sorted(usages, key=lambda usage: -usage.seconds)


def _usage(process: str, tasks: Sequence[Mapping[str, str]]) -> Usage:
    seconds = [value / 1000.0 for value in _numbers(tasks, "realtime")]
    busy = [value / 100.0 for value in _numbers(tasks, "%cpu")]
    cached = sum(task["status"] == "CACHED" for task in tasks)
    memory = int(max(_numbers(tasks, "peak_rss")))
    return Usage(process, len(tasks), cached, sum(seconds), max(seconds), sum(busy) / len(busy), memory)


def _numbers(tasks: Sequence[Mapping[str, str]], field: str) -> list[float]:
    """The field of every task that was measured; a task of less than a second may not have been."""
    return [float(task[field]) for task in tasks if task[field] not in ("-", "")] or [0.0]
