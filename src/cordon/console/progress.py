"""How far a long step is: a bar on a terminal, a line now and then in a log.

Commands give the package's functions `shown` as their `Steps`, or what `telling` yields.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cordon import foreign
from cordon.steps import Steps, Tick, duration, rate

if TYPE_CHECKING:
    from rich.progress import Task
    from rich.text import Text

Say = Callable[[str], None]
# Seconds: in a log a line at most so often, and none at all of a step that is over sooner than BRIEF.
A_LINE_EVERY = 30.0
BRIEF = 2.0


@dataclass
class Step:
    """One step, as far as it is."""

    what: str
    total: int | None
    unit: str
    done: int = 0
    over: bool = False
    began: float = field(default_factory=lambda: time.monotonic())
    reached: float = field(default_factory=lambda: time.monotonic())  # when ``done`` was
    clock: str = field(default_factory=lambda: time.strftime("%H:%M:%S"))

    def advance(self, done: int) -> None:
        self.done += done
        self.reached = time.monotonic()

    def __str__(self) -> str:
        """For example: 1,200 of 3,000 candidates, 5,200 a second, about 35 s left."""
        seconds = time.monotonic() - self.began
        end = [f"done in {duration(seconds)}"] if self.over else []
        if not self.unit:
            return end[0] if end else f"since {self.clock}"
        of = "" if self.total is None else f" of {self.total:,}"
        told = [f"{self.done:,}{of} {self.unit}"]
        each = (self.reached - self.began) / self.done if self.done else 0.0
        if each:
            told.append(rate(1 / each))
            if self.total is not None and self.done < self.total:
                left = each * (self.total - self.done) - (time.monotonic() - self.reached)
                end = [f"about {duration(max(0.0, left))} left"]
        return ", ".join([*told, *end])


def say(line: str) -> None:
    """A line on stderr, with the time of day."""
    click.echo(_stamped(line), err=True)


class Plain(logging.Formatter):
    """Log lines as `cordon.foreign.lines` has them: whoever asks something of us chooses words of them."""

    def format(self, record: logging.LogRecord) -> str:
        return foreign.lines(super().format(record))


def _stamped(line: str) -> str:
    return f"{time.strftime('%H:%M:%S')} {foreign.lines(line)}"


@dataclass(frozen=True)
class Telling:
    """Tells of progress: lines by ``say``, and each step by ``steps``."""

    say: Say

    @contextmanager
    def steps(self, what: str, total: int | None, unit: str) -> Iterator[Tick]:
        """A bar where stderr is a terminal, else lines by ``say``."""
        bar = _on_a_terminal()
        with _drawn(Step(what, total, unit)) if bar else self._listed(Step(what, total, unit)) as tick:
            yield tick

    @contextmanager
    def _listed(self, step: Step) -> Iterator[Tick]:
        told = step.began

        def tick(done: int = 1) -> None:
            nonlocal told
            step.advance(done)
            if step.done != step.total and step.reached - told >= A_LINE_EVERY:
                told = step.reached
                self.say(f"{step.what}: {step}")

        yield tick
        step.over = True
        if time.monotonic() - step.began >= BRIEF:
            self.say(f"{step.what}: {step}")


shown: Steps = Telling(say).steps


@contextmanager
def telling(path: str | Path | None) -> Iterator[Telling]:
    """Tells on stderr, and in the file at ``path`` where one is given.

    A workflow engine keeps a task's output until the task ends; the file is there to be followed.
    """
    if path is None:
        yield Telling(say)
        return
    with open(path, "a", encoding="utf-8") as handle:

        def both(line: str) -> None:
            say(line)
            handle.write(_stamped(line) + "\n")
            handle.flush()

        yield Telling(both)


def _on_a_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextmanager
def _drawn(step: Step) -> Iterator[Tick]:
    """A bar that is gone when the step is over: what came of it is told by the command."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Told(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(str(step))

    whole = Column(no_wrap=True)
    columns = TextColumn("{task.description}", table_column=whole), BarColumn(bar_width=None), Told(whole)
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as bar:
        task = bar.add_task(step.what, total=step.total)

        def tick(done: int = 1) -> None:
            step.advance(done)
            bar.update(task, completed=step.done)

        yield tick
