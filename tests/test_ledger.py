"""Tests of cordon.ledger."""

import json
import os
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cordon.accountants import Event, epsilon_rdp
from cordon.errors import BudgetExceeded, UserError
from cordon.ledger import ChainedLog, SiteLedger

EVENT = Event(2.0, 0.1, 10)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ROWS = st.dictionaries(
    st.text(max_size=9).filter(lambda name: name not in ("previous", "hash", "signature")),
    VALUES,
    max_size=4,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The bytes of a log of four rows, in a folder with its key."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    log = ChainedLog(path)
    for number in range(4):
        log.append({"kind": "decision", "number": number, "epsilon": 0.1 * number})
    return path, path.read_bytes()


def reopened(written, content):
    path, original = written
    path.write_bytes(content)
    try:
        return list(ChainedLog(path))
    finally:
        path.write_bytes(original)


@settings(max_examples=25, deadline=None)
@given(st.lists(ROWS, max_size=5))
def test_a_log_reads_back_what_was_appended(rows):
    with TemporaryDirectory() as folder:
        log = ChainedLog(Path(folder) / "log.jsonl")
        for row in rows:
            log.append(row)
        again = ChainedLog(log.path)
        assert list(again) == rows == list(log)
        assert again.head == log.head
        assert again.public_key == log.public_key


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_changed_byte_is_refused_and_the_row_named(written, data):
    content = bytearray(written[1])
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    row = written[1][:place].count(b"\n") + 1
    with pytest.raises(UserError, match=rf"log\.jsonl, row {row}: "):
        reopened(written, bytes(content))


@pytest.mark.parametrize("spelling", ["upper case", "spaces", "escapes", "carriage return"])
def test_another_spelling_of_the_same_row_is_refused(written, spelling):
    line, rest = written[1].split(b"\n", 1)
    signature = json.loads(line)["signature"].encode()
    other = {
        "upper case": line.replace(signature, signature.upper()),
        "spaces": line.replace(b": ", b":  ", 1),
        "escapes": line.replace(b"kind", b"\\u006bind", 1),
        "carriage return": line + b"\r",
    }[spelling]
    assert other != line
    with pytest.raises(UserError, match="row 1"):
        reopened(written, other + b"\n" + rest)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(4)), st.integers(1, 4))
def test_removed_or_swapped_rows_are_refused(written, order, count):
    lines = written[1].splitlines(keepends=True)
    kept = [lines[number] for number in order[:count]]
    if order[:count] == list(range(count)):  # missing rows at the end cannot be told
        assert len(reopened(written, b"".join(kept))) == count
    else:
        with pytest.raises(UserError, match=r"row \d: the row does not follow"):
            reopened(written, b"".join(kept))


def test_a_row_signed_with_another_key_is_refused(written, tmp_path):
    other = ChainedLog(tmp_path / "other.jsonl")
    other.head = json.loads(written[1].splitlines()[-1])["hash"]
    other.append({"kind": "decision", "number": 4})
    with pytest.raises(UserError, match="row 5: the row's signature does not verify"):
        reopened(written, written[1] + other.path.read_bytes())


@pytest.mark.parametrize(
    "line", [b"[]", b"null", b"7", b"{}", b'{"signature": 1, "hash": 2}', b"\xff\xfe", b""]
)
def test_a_line_that_is_no_row_is_refused(written, line):
    with pytest.raises(UserError, match="row 5"):
        reopened(written, written[1] + line + b"\n")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_crash_inside_a_row_loses_nothing_before_it(written, data):
    ends = [place + 1 for place, byte in enumerate(written[1]) if byte == ord("\n")]
    cut = data.draw(st.integers(1, len(written[1]) - 1))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        path.write_bytes(written[1][:cut])
        path.with_suffix(".key").write_bytes(written[0].with_suffix(".key").read_bytes())
        # A row that lacks nothing but its end of line is whole.
        whole = sum(end <= cut + 1 for end in ends)
        log = ChainedLog(path)
        assert [row["number"] for row in log] == list(range(whole))
        log.append({"number": whole})
        assert [row["number"] for row in ChainedLog(path)] == list(range(whole + 1))


def test_zeros_after_the_last_row_are_a_crash_too(written):
    assert len(reopened(written, written[1] + b"\0" * 100)) == 4


@pytest.mark.parametrize("byte", [b"\x80", b"x", b" ", b"\r", b"}"])
def test_a_changed_end_of_the_last_line_is_no_crash(written, byte):
    with pytest.raises(UserError, match="row 4"):
        reopened(written, written[1][:-1] + byte)


def test_a_full_disk_leaves_no_half_row(tmp_path, monkeypatch):
    log = ChainedLog(tmp_path / "log.jsonl")
    log.append({"number": 0})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            log.append({"number": 1})
    log.append({"number": 2})
    assert [row["number"] for row in ChainedLog(log.path)] == [0, 2] == [row["number"] for row in log]


def test_two_processes_cannot_both_write(tmp_path):
    first, second = (SiteLedger(tmp_path / "site.jsonl", epsilon=8, delta=1e-5) for _ in range(2))
    first.reserve("a", 1, EVENT, unit="patient")
    with pytest.raises(UserError, match="another process wrote to this ledger"):
        second.reserve("b", 1, EVENT, unit="patient")
    assert len(SiteLedger(tmp_path / "site.jsonl", epsilon=8, delta=1e-5).events()) == 1


def test_the_key_is_its_owners_and_no_other_is_made_for_an_old_log(tmp_path):
    log = ChainedLog(tmp_path / "log.jsonl")
    key = tmp_path / "log.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    log.append({})
    key.write_text("no key")
    with pytest.raises(UserError, match=r"log\.key: not a private key"):
        ChainedLog(log.path)
    key.unlink()
    with pytest.raises(UserError, match=r"the key of log\.jsonl is missing"):
        ChainedLog(log.path)
    assert not key.exists()


def ledger(folder, *, epsilon=8.0, delta=1e-5):
    return SiteLedger(folder / "site.jsonl", epsilon=epsilon, delta=delta)


def test_a_reservation_is_on_disk_before_reserve_returns(tmp_path):
    ledger(tmp_path).reserve("a", 1, EVENT, unit="patient")
    assert ledger(tmp_path).events() == [EVENT]
    assert ledger(tmp_path).spent() == epsilon_rdp([EVENT], 1e-5)


def test_after_a_crash_the_same_round_uses_its_reservation_again(tmp_path):
    ledger(tmp_path).reserve("a", 1, EVENT, unit="patient")
    ledger(tmp_path).reserve("a", 1, EVENT, unit="patient")
    assert ledger(tmp_path).events() == [EVENT]


def test_a_round_that_was_answered_is_never_answered_again(tmp_path):
    first = ledger(tmp_path)
    first.reserve("a", 1, EVENT, unit="patient")
    first.mark_sent("a", 1)
    for again in (first, ledger(tmp_path)):
        assert again.sent("a", 1)
        with pytest.raises(UserError, match="round 1 of run a was answered before"):
            again.reserve("a", 1, EVENT, unit="patient")
        with pytest.raises(UserError, match="round 1 of run a was answered before"):
            again.reserve("a", 1, Event(9.0, 0.1, 1), unit="patient")
    assert ledger(tmp_path).events() == [EVENT]


def test_a_round_asked_again_at_another_cost_is_reserved_again(tmp_path):
    held = ledger(tmp_path)
    held.reserve("a", 1, EVENT, unit="patient")
    held.reserve("a", 1, Event(4.0, 0.1, 10), unit="patient")
    assert held.events() == [EVENT, Event(4.0, 0.1, 10)]


def test_a_round_beyond_the_budget_is_refused_and_nothing_is_recorded(tmp_path):
    one = epsilon_rdp([EVENT], 1e-5)
    held = ledger(tmp_path, epsilon=one)
    held.reserve("a", 1, EVENT, unit="patient")  # exactly the budget is allowed
    before = held._log.path.read_bytes()
    with pytest.raises(
        BudgetExceeded, match=r"round 2 would bring epsilon to .* Nothing was spent"
    ) as refusal:
        held.reserve("a", 2, EVENT, unit="patient")
    assert refusal.value.exit_code == 3
    assert held._log.path.read_bytes() == before


def test_spending_composes_over_runs(tmp_path):
    for run in "ab":
        held = ledger(tmp_path)
        held.reserve(run, 1, EVENT, unit="patient")
        held.mark_sent(run, 1)
    assert ledger(tmp_path).spent() == epsilon_rdp([Event(2.0, 0.1, 20)], 1e-5)
    with pytest.raises(BudgetExceeded):
        ledger(tmp_path, epsilon=ledger(tmp_path).spent()).reserve("c", 1, EVENT, unit="patient")


def test_the_same_spending_is_more_epsilon_at_a_smaller_delta(tmp_path):
    ledger(tmp_path).reserve("a", 1, EVENT, unit="patient")
    assert ledger(tmp_path, delta=1e-8).spent() == epsilon_rdp([EVENT], 1e-8)
    assert ledger(tmp_path, delta=1e-8).spent() > ledger(tmp_path, delta=1e-5).spent()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.sampled_from([1.0, 2.0, 4.0]), st.booleans()),
        max_size=8,
    ),
    st.floats(0.5, 4.0),
)
def test_whatever_is_asked_the_budget_holds_and_what_is_sent_was_reserved(asked, budget):
    with TemporaryDirectory() as folder:
        sent = []
        for run, number, noise, crash in asked:  # a new object for each: as after a restart
            held, event = ledger(Path(folder), epsilon=budget), Event(noise, 0.2, 5)
            try:
                held.reserve(run, number, event, unit="patient")
            except UserError:
                continue
            if not crash:
                held.mark_sent(run, number)
                sent.append((run, number, event))
        held = ledger(Path(folder), epsilon=budget)
        assert held.spent() <= budget
        assert epsilon_rdp([event for *_, event in sent], 1e-5) <= held.spent() + 1e-9
        assert len({(run, number) for run, number, _ in sent}) == len(sent)


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [(0.0, 1e-5), (-1.0, 1e-5), (float("nan"), 1e-5), (float("inf"), 1e-5), (1.0, 0.0), (1.0, float("nan"))],
)
def test_what_is_no_budget_is_refused(tmp_path, epsilon, delta):
    with pytest.raises(UserError, match="no budget"):
        ledger(tmp_path, epsilon=epsilon, delta=delta)


def test_spending_per_patient_and_per_variant_are_not_mixed(tmp_path):
    ledger(tmp_path).reserve("a", 1, EVENT, unit="patient")
    with pytest.raises(UserError, match="per patient; this run counts per variant"):
        ledger(tmp_path).reserve("b", 1, EVENT, unit="variant")
    assert len(ledger(tmp_path).events()) == 1
