"""Tests of cordon.cohorts and of budgets by patient in cordon.site_ledger.

Compositions are dp-accounting's own, so that nothing of Cordon's accounting is taken for granted.
"""

import json
import shutil
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from click.testing import CliRunner
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from cordon import cli
from cordon.accountants import Event
from cordon.errors import BudgetExceeded, UserError
from cordon.ledger import ChainedLog
from cordon.pseudonyms import FILE, read_salt
from cordon.site_ledger import SiteLedger
from cordon.units import Grouping, Units

DELTA = 1e-5
PATIENTS = Grouping("patient", "mlp", 256, 40)
EVENT = Event(2.0, 0.1, 10)


def composed(events, accountant=RdpAccountant):
    """Epsilon of ``events`` by dp-accounting alone."""
    return _composed(
        tuple(sorted((e.noise_multiplier, e.sampling_rate, e.steps) for e in events)), accountant
    )


@cache
def _composed(events, accountant):
    account = accountant()
    for noise, rate, steps in events:
        account.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)
    return account.get_epsilon(DELTA) if events else 0.0


def ledger(folder, name="north", epsilon=8.0):
    return SiteLedger(Path(folder) / f"{name}.sqlite", epsilon=epsilon, delta=DELTA)


def reserve(held, run, number, who, event=EVENT, **more):
    part = held.reserve(run, number, event, PATIENTS, sorted(who), accountant="rdp", **more)
    held.mark_sent(run, number)
    return part


ROUNDS = st.lists(
    st.tuples(
        st.sampled_from(["north", "south"]), st.sampled_from("abc"), st.sampled_from([1.5, 3.0]),
        st.sets(st.sampled_from("pqrs"), min_size=1), st.integers(0, 2), st.booleans(),
    ),
    max_size=9,
)  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(ROUNDS, st.sampled_from([0.9, 1.6, 2.5]))
def test_whatever_happens_each_patient_keeps_to_the_budget_by_an_independent_composition(rounds, budget):
    """A model in five lines plays the rule: by patient, over all ledgers, new to the run or not."""
    with TemporaryDirectory() as folder:
        history = {patient: [] for patient in "pqrs"}
        for number, (name, run, noise, who, after, crash) in enumerate(rounds, start=1):
            event, held = Event(noise, 0.2, 5), ledger(folder, name, budget)
            expected = set()
            running = any(row[:2] == (name, run) for rows in history.values() for row in rows)
            for patient in who:
                mine = [event for *_, event in history[patient]]
                begun = any(row[:2] == (name, run) for row in history[patient])
                whole = composed([event] * (1 + after)) <= budget and not running
                fits = composed([*mine, *[event] * (1 + after * whole)]) <= budget
                if fits and (begun or not running):
                    expected.add(patient)
            if not expected:
                before = list(held._log)
                with pytest.raises((BudgetExceeded, UserError)):
                    held.reserve(run, number, event, PATIENTS, sorted(who), after=after, accountant="rdp")
                assert list(held._log) == before
                continue
            assert (
                held.reserve(run, number, event, PATIENTS, sorted(who), after=after, accountant="rdp")
                == expected
            )
            if crash:  # the same round again, by a new process: nobody is charged twice
                again = ledger(folder, name, budget)
                assert (
                    again.reserve(run, number, event, PATIENTS, sorted(who), after=after, accountant="rdp")
                    == expected
                )
            for patient in expected:
                history[patient].append((name, run, event))
        for name in {name for name, *_ in rounds}:
            own = [rows for rows in history.values() if any(row[0] == name for row in rows)]
            most = max((composed([event for *_, event in rows]) for rows in own), default=0.0)
            assert ledger(folder, name, budget).spent() == pytest.approx(most)
            assert most <= budget


def test_a_renamed_site_finds_what_its_patients_spent(tmp_path):
    budget = composed([EVENT] * 2)
    north = ledger(tmp_path, "north", budget)
    assert reserve(north, "a", 1, "pq") == reserve(north, "a", 2, "pq") == {"p", "q"}
    renamed = ledger(tmp_path, "north2", budget)
    with pytest.raises(
        BudgetExceeded,
        match=r"round 1 would bring what is spent over all runs to epsilon .* by RDP; .* by PLD, which is "
        r"more than the site's budget for a lifetime, epsilon .* \(unit: one patient; delta ",
    ):
        renamed.reserve("b", 1, EVENT, PATIENTS, ["p", "q"], accountant="rdp")
    assert list(renamed._log) == []
    # Who is new has a full budget, and those who have spent theirs are left out.
    assert reserve(renamed, "b", 1, "pqr") == {"r"}
    assert reserve(renamed, "b", 2, "pqr") == {"r"}
    assert renamed.spent() == pytest.approx(budget)
    with pytest.raises(BudgetExceeded):
        renamed.reserve("b", 3, EVENT, PATIENTS, ["p", "q", "r"], accountant="rdp")


def test_disjoint_cohorts_compose_in_parallel_and_overlapping_ones_in_sequence(tmp_path):
    held = ledger(tmp_path, epsilon=composed([EVENT] * 3))
    for run, number, who in (("a", 1, "pq"), ("a", 2, "pq"), ("b", 1, "rs"), ("b", 2, "rs"), ("c", 1, "qr")):
        reserve(held, run, number, who)
    with pytest.raises(BudgetExceeded):
        held.reserve("c", 2, EVENT, PATIENTS, ["q", "r"], accountant="rdp")
    spent = {tuple(row.run + str(row.round) for row in history.reservations): int(history.patients.sum())
             for history in held.histories()}  # fmt: skip
    assert spent == {("a1", "a2"): 1, ("a1", "a2", "c1"): 1, ("b1", "b2", "c1"): 1, ("b1", "b2"): 1}


def test_whether_a_patient_takes_part_depends_on_nobody_else(tmp_path):
    budget, others = composed([EVENT] * 4), ["", "b", "bc", "bcd"]
    found = {}
    for index, more in enumerate(others):
        folder = tmp_path / str(index)
        for name, who in (("north", "ab"), ("north", "bc"), ("south", "abd")):
            if present := set(who) & {"a", *more}:
                reserve(ledger(folder, name, budget), f"of {name} {who}", 1, present)
        try:
            found[more] = "a" in ledger(folder, "east", budget).reserve(
                "new", 1, EVENT, PATIENTS, ["a", *more], after=1, accountant="rdp"
            )
        except BudgetExceeded:
            found[more] = False
    assert set(found.values()) == {True}
    assert all("a" not in _or_nobody(tmp_path / str(i), budget, m) for i, m in enumerate(others))


def _or_nobody(folder, budget, more):
    try:
        return ledger(folder, "west", budget).reserve(
            "newer", 1, EVENT, PATIENTS, ["a", *more], after=2, accountant="rdp"
        )
    except BudgetExceeded:
        return frozenset()


def test_who_has_no_room_for_a_whole_run_is_left_out_from_its_first_round(tmp_path):
    held = ledger(tmp_path, epsilon=composed([EVENT] * 4))
    reserve(held, "a", 1, "p")
    for number in (1, 2, 3, 4):  # p could bear three of four rounds
        assert reserve(held, "b", number, "pq", after=4 - number) == {"q"}
    with pytest.raises(BudgetExceeded, match=r"2 rounds from round 1 on would .* by those who spent least"):
        ledger(tmp_path, epsilon=composed([EVENT] * 2)).reserve(
            "c", 1, EVENT, PATIENTS, ["p", "q"], after=1, accountant="rdp"
        )


def test_where_nobody_new_could_bear_the_run_everybody_takes_part_as_long_as_there_is_room(tmp_path):
    """A fact about plan and budget alone: the site stops by itself before the round that does not fit."""
    held = ledger(tmp_path, epsilon=composed([EVENT] * 2))
    assert [reserve(held, "a", number, "pq", after=3 - number) for number in (1, 2)] == [{"p", "q"}] * 2
    with pytest.raises(BudgetExceeded):
        held.reserve("a", 3, EVENT, PATIENTS, ["p", "q"], accountant="rdp")


def test_rows_without_a_cohort_count_for_every_patient_of_the_folder(tmp_path):
    """As those of ledgers that are older than cohorts."""
    ledger(tmp_path, "north").reserve("a", 1, EVENT, PATIENTS, accountant="rdp")
    south = ledger(tmp_path, "south", composed([EVENT] * 2))
    assert reserve(south, "b", 1, "p") == {"p"}
    assert south.spent() == pytest.approx(composed([EVENT] * 2))
    with pytest.raises(BudgetExceeded):
        south.reserve("b", 2, EVENT, PATIENTS, ["p"], accountant="rdp")


def test_whoever_is_told_from_nobody_has_taken_part_in_all_that_the_ledger_holds(tmp_path):
    held = ledger(tmp_path, epsilon=composed([EVENT] * 2))
    reserve(held, "a", 1, "p")
    reserve(held, "b", 1, "q")
    with pytest.raises(BudgetExceeded):
        held.reserve("c", 1, EVENT, PATIENTS, accountant="rdp")


def test_a_budget_held_against_pld_has_room_for_more(tmp_path):
    budget = composed([EVENT] * 30)
    for accountant, folder in (("rdp", tmp_path / "r"), ("pld", tmp_path / "p")):
        held = ledger(folder, epsilon=budget)
        event = Event(2.0, 0.1, 310)  # a thirtieth more than the budget by RDP
        if accountant == "rdp":
            with pytest.raises(BudgetExceeded, match="The budget is held against RDP"):
                held.reserve("a", 1, event, PATIENTS, ["p"], accountant="rdp")
            continue
        assert held.reserve("a", 1, event, PATIENTS, ["p"], accountant="pld") == {"p"}
        rdp, pld = held.epsilons()
        assert rdp == pytest.approx(composed([event]))
        assert rdp > budget >= pld == pytest.approx(composed([event], PLDAccountant), rel=5e-3)
        assert held._log.of_kind("budget")[-1]["accountant"] == "pld"
    with pytest.raises(UserError, match="no accountant is called 'gdp'"):
        ledger(tmp_path).reserve("a", 1, EVENT, PATIENTS, ["p"], accountant="gdp")


@pytest.mark.parametrize("lost", ["removed", "another one"])
def test_a_salt_that_ledgers_name_is_not_made_anew(tmp_path, lost):
    reserve(ledger(tmp_path), "a", 1, "p")
    (tmp_path / FILE).unlink()
    if lost == "another one":
        read_salt(tmp_path)
    left = (tmp_path / FILE).exists()
    for name in ("north", "south"):
        with pytest.raises(UserError, match=r"pseudonym\.salt: .*Bring back the file that was there"):
            ledger(tmp_path, name).reserve("b", 1, EVENT, PATIENTS, ["p"], accountant="rdp")
    assert (tmp_path / FILE).exists() == left


def test_a_ledger_names_no_patient_and_its_export_not_even_how_many(tmp_path):
    who = [f"secret-patient-{number}" for number in range(7)]
    held = ledger(tmp_path)
    reserve(held, "a", 1, who)
    held.reserve("a", 2, EVENT, PATIENTS, who, accountant="rdp")
    content = (tmp_path / "north.sqlite").read_bytes()
    salt = read_salt(tmp_path)
    assert b"secret" not in content
    assert all(salt.digest(one) in content for one in who)
    lines = CliRunner().invoke(cli.main, ["ledger", "export", str(tmp_path / "north.sqlite")]).stdout
    rows = [json.loads(line) for line in lines.splitlines()]
    assert len({row["cohort"] for row in rows if row["kind"] == "reserved"}) == 1
    assert not any(salt.digest(one).hex() in lines for one in who)
    another = ledger(tmp_path / "other")  # as long as that of a single patient
    reserve(another, "a", 1, who[:1])
    another.reserve("a", 2, EVENT, PATIENTS, who[:1], accountant="rdp")
    alone = (
        CliRunner().invoke(cli.main, ["ledger", "export", str(tmp_path / "other" / "north.sqlite")]).stdout
    )
    assert len(alone) == len(lines)


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM attachments", "DROP TABLE attachments", "UPDATE attachments SET content = x'00'"],
)
def test_a_cohort_that_is_gone_or_was_changed_is_refused(tmp_path, statement):
    reserve(ledger(tmp_path), "a", 1, "pq")
    with closing(sqlite3.connect(tmp_path / "north.sqlite")) as connection, connection:
        connection.execute(statement)
    for name in ("north", "south"):
        with pytest.raises(
            UserError, match=r"north\.sqlite: the cohort .* is not in it\. Restore the ledger"
        ):
            ledger(tmp_path, name).reserve("b", 1, EVENT, PATIENTS, ["p"], accountant="rdp")


def test_a_ledger_beside_it_that_was_changed_is_refused(tmp_path):
    reserve(ledger(tmp_path), "a", 1, "pq")
    with closing(sqlite3.connect(tmp_path / "north.sqlite")) as connection, connection:
        connection.execute("UPDATE rows SET line = replace(line, '10', '11') WHERE number = 2")
    with pytest.raises(UserError, match=r"north\.sqlite, row 2: the row's signature does not verify"):
        ledger(tmp_path, "south").reserve("b", 1, EVENT, PATIENTS, ["p"], accountant="rdp")


def test_what_one_ledger_counts_by_patient_another_of_the_folder_does_not_by_variant(tmp_path):
    reserve(ledger(tmp_path), "a", 1, "p")
    with pytest.raises(UserError, match=r"north\.sqlite holds what was spent per patient"):
        ledger(tmp_path, "south").reserve(
            "b", 1, EVENT, replace(PATIENTS, unit="variant"), ["p"], accountant="rdp"
        )


def test_what_was_not_written_after_all_attaches_nothing(tmp_path, monkeypatch):
    held = ledger(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(ChainedLog, "append", lambda self, row: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            held.reserve("a", 1, EVENT, PATIENTS, ["p"], accountant="rdp")
    assert held._log.chain.attached == {}
    assert reserve(held, "a", 1, "p") == {"p"}
    assert ledger(tmp_path)._log.chain.attached.keys() == {
        ChainedLog(tmp_path / "north.sqlite").of_kind("reserved")[0]["cohort"]
    }


def test_one_patient_at_two_ledgers_at_once_is_charged_in_turn(tmp_path):
    budget = composed([EVENT] * 5)

    def race(name):
        held, done = ledger(tmp_path, name, budget), 0
        for number in range(1, 7):
            try:
                done += len(reserve(held, "a", number, "p"))
            except BudgetExceeded:
                break
        return done

    ledger(tmp_path, "east")  # so that all find a salt
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(race, ["north", "south", "west"]))
    assert sum(done) == 5
    assert max(ledger(tmp_path, name, budget).spent() for name in ("north", "south", "west")) <= budget


def test_a_hundred_thousand_patients_are_reserved_for_quickly(tmp_path):
    who = [f"p{number:06}" for number in range(100_000)]
    held = ledger(tmp_path, epsilon=50.0)
    held.reserve("a", 1, EVENT, PATIENTS, who[:60_000], accountant="rdp")
    ledger(tmp_path, "south", 50.0).reserve("a", 1, EVENT, PATIENTS, who[50_000:], accountant="rdp")
    began = time.process_time()
    assert len(held.reserve("b", 1, EVENT, PATIENTS, who, after=9, accountant="rdp")) == 100_000
    first, began = time.process_time() - began, time.process_time()
    assert len(held.reserve("b", 2, EVENT, PATIENTS, who, after=8, accountant="rdp")) == 100_000
    assert first < 5.0
    assert time.process_time() - began < 2.0
    assert sorted(int(history.patients.sum()) for history in held.histories()) == [10_000, 40_000, 50_000]


def test_a_ledger_is_shown_by_cohort(tmp_path):
    held = ledger(tmp_path, epsilon=4.0)
    reserve(held, "a", 1, "pqr")
    reserve(held, "b", 1, "rs")
    reserve(ledger(tmp_path, "south", 4.0), "c", 1, "s")
    path = str(tmp_path / "north.sqlite")
    shown = json.loads(CliRunner().invoke(cli.main, ["ledger", "show", path, "--json"]).stdout)["cohorts"]
    found = {tuple(one["runs"]): (one["patients"], one["rounds"], one["ledgers"]) for one in shown}
    assert found == {
        ("a", "b"): (1, 2, ["north"]), ("b", "c"): (1, 2, ["north", "south"]), ("a",): (2, 1, ["north"]),
    }  # fmt: skip
    for one in shown:
        events = [EVENT] * one["rounds"]
        assert one["epsilon_rdp"] == pytest.approx(composed(events))
        assert one["epsilon_pld"] == pytest.approx(composed(events, PLDAccountant), rel=5e-3)
        assert one["left_by_rdp"] == pytest.approx(4.0 - composed(events))
        assert {"unit", "delta", "mechanism", "adjacency"} <= one.keys()
    lines = CliRunner().invoke(cli.main, ["ledger", "show", path]).stdout.splitlines()
    assert [line.split(",")[0] for line in lines[-3:]] == [
        "cohort of 1 patients", "cohort of 1 patients", "cohort of 2 patients",
    ]  # fmt: skip
    assert all("by RDP; " in line and "unit: one patient; delta 1e-05" in line for line in lines[-3:])
    shutil.copytree(tmp_path, tmp_path / "copy")
    export = tmp_path / "copy" / "north.jsonl"
    CliRunner().invoke(cli.main, ["ledger", "export", path, "--output", str(export)])
    shown = CliRunner().invoke(
        cli.main, ["ledger", "show", str(export), "--key", held._log.public_key, "--json"]
    )
    assert json.loads(shown.stdout)["cohorts"] == []


@pytest.mark.parametrize("unit", ["patient", "variant"])
def test_the_units_of_some_patients_are_theirs_alone(unit):
    features = np.arange(24, dtype=np.float32).reshape(8, 3)
    owners = ["c", "a", "b", "a", "c", "c", "a", "b"]
    units = Units.group(features, features[:, 0], owners, unit=unit)
    assert units.patients == ("a", "b", "c")
    some = units.of({"a", "c"})
    kept = [row for row, owner in enumerate(owners) if owner != "b"]
    assert sorted(some.labels) == [features[row, 0] for row in kept]
    assert len(some) == (2 if unit == "patient" else 6)
    for unit_, owner in enumerate(some.owners):
        rows = some.features[some.offsets[unit_] : some.offsets[unit_ + 1]]
        assert {owners[int(row[0]) // 3] for row in rows} == {some.patients[owner]}
    assert units.of({"a", "b", "c"}) is units
    assert len(units.of(set())) == 0
