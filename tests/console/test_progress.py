"""Tests of cordon.console.progress: how far long steps are, in logs and on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from cordon.console import progress
from cordon.console.progress import Step, Telling, telling
from cordon.steps import duration, rate


class Clock:
    """Stands for the time module; it goes on only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def strftime(self, layout: str) -> str:
        return "12:00:00"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_step_tells_count_rate_and_what_is_left(clock: Clock) -> None:
    step = Step("scoring", 3000, "candidates", began=clock.now)
    assert str(step) == "0 of 3,000 candidates"
    clock.now += 4
    step.advance(1200)
    assert str(step) == "1,200 of 3,000 candidates, 300 a second, about 6.0 s left"
    clock.now += 5
    assert str(step) == "1,200 of 3,000 candidates, 300 a second, about 1.0 s left"
    step.advance(1800)
    step.over = True
    assert str(step) == "3,000 of 3,000 candidates, 333 a second, done in 9.0 s"


def test_without_a_total_nothing_is_said_to_be_left(clock: Clock) -> None:
    step = Step("reading", None, "reads", began=clock.now)
    clock.now += 2
    step.advance(5)
    assert str(step) == "5 reads, 2.5 a second"


def test_a_step_that_cannot_be_counted_tells_since_when_it_runs(clock: Clock) -> None:
    step = Step("gathering", None, "", began=clock.now)
    assert str(step) == "since 12:00:00"
    clock.now += 61
    step.over = True
    assert str(step) == "done in 1 min 1 s"


def test_times_and_rates_are_told_in_the_unit_that_suits_them() -> None:
    assert [duration(seconds) for seconds in (0, 4.54, 35.2, 59.6, 125, 599.6, 3599, 12_000)] == [
        "0.0 s", "4.5 s", "35 s", "1 min 0 s", "2 min 5 s", "10 min", "1 h 0 min", "3 h 20 min",
    ]  # fmt: skip
    assert [rate(a_second) for a_second in (5213.3, 10, 2.5, 0.5, 1 / 600)] == [
        "5,213 a second", "10 a second", "2.5 a second", "2.0 s each", "10 min each",
    ]  # fmt: skip


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(clock: Clock) -> None:
    said: list[str] = []
    with Telling(said.append).steps("encoding", 100, "bp") as tick:
        for _ in range(100):
            clock.now += 1
            tick()
    assert said == [
        "encoding: 30 of 100 bp, 1.0 a second, about 1 min 10 s left",
        "encoding: 60 of 100 bp, 1.0 a second, about 40 s left",
        "encoding: 90 of 100 bp, 1.0 a second, about 10 s left",
        "encoding: 100 of 100 bp, 1.0 a second, done in 1 min 40 s",
    ]


def test_a_step_that_is_over_at_once_is_not_told(clock: Clock) -> None:
    said: list[str] = []
    with Telling(said.append).steps("encoding", 2, "bp") as tick:
        clock.now += 1.9
        tick(2)
    assert said == []


def test_a_step_that_fails_is_not_told_as_done(clock: Clock) -> None:
    said: list[str] = []

    def fails() -> None:
        with Telling(said.append).steps("encoding", 2, "bp"):
            clock.now += 60
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert said == []


def test_what_is_told_goes_to_stderr_and_to_the_file_that_is_followed(clock, tmp_path, capsys) -> None:
    path = tmp_path / "progress.log"
    path.write_text("before\n")
    with telling(path) as tell:
        tell.say("round 1 of 2")
        assert path.read_text() == "before\n12:00:00 round 1 of 2\n"
        with tell.steps("membership", 4, "trainings") as tick:
            clock.now += 8
            tick(4)
    told = "12:00:00 round 1 of 2\n12:00:00 membership: 4 of 4 trainings, 2.0 s each, done in 8.0 s\n"
    assert path.read_text() == f"before\n{told}"
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", told)


SHOWS = """
import time
from cordon.console.progress import shown
with shown("scoring", 40_000, "candidates") as tick:
    for _ in range(4):
        time.sleep(0.3)
        tick(10_000)
print("40000 scored")
"""


def on_a_terminal(code: str, **environment: str) -> str:
    """What is seen of a Python program on a terminal of 80 columns."""
    parent, child = pty.openpty()
    found = os.environ | {"TERM": "xterm", "COLUMNS": "80"} | environment
    process = subprocess.Popen([sys.executable, "-c", code], stdout=child, stderr=child, env=found)
    os.close(child)
    seen = b""
    while True:
        try:
            part = os.read(parent, 4096)
        except OSError:  # Linux's end of a terminal whose other side is closed
            break
        if not part:
            break
        seen += part
    os.close(parent)
    assert process.wait() == 0, seen.decode()
    return seen.decode()


@pytest.mark.stress
def test_a_terminal_shows_a_bar_that_is_gone_at_the_end() -> None:
    seen = on_a_terminal(SHOWS)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    assert re.search(r"scoring ━.* of 40,000 candidates, [\d,]+ a second, about \d\.\d s left", plain)
    assert max(map(len, re.split(r"[\r\n]+", plain))) <= 80
    assert seen.rindex("\x1b[2K") < seen.rindex("40000 scored")
    assert plain.endswith("40000 scored\r\n")


@pytest.mark.stress
def test_a_terminal_that_can_draw_nothing_gets_lines_alone() -> None:
    assert on_a_terminal(SHOWS, TERM="dumb").endswith("40000 scored\r\n")
    assert "\x1b" not in on_a_terminal(SHOWS, TERM="dumb")


def test_commands_load_no_rich_where_there_is_no_terminal() -> None:
    code = "import sys; from cordon.console.progress import shown; "
    code += "shown('scoring', 1, 'candidates').__enter__()(); print('rich' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
