"""Tests of cordon.ledger.cohorts and of budgets by patient in cordon.ledger.site.

Compositions are dp-accounting's own, so that nothing of Cordon's accounting is taken for granted.
"""

import json
import shutil
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from click.testing import CliRunner
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from composition import DELTA, composed
from cordon import cli
from cordon.errors import BudgetExceeded, UserError
from cordon.federation.credentials import enrol
from cordon.federation.plan import Site
from cordon.ledger.log import ChainedLog
from cordon.ledger.pseudonyms import SALT_FILE, read_salt
from cordon.ledger.site import SiteLedger
from cordon.privacy.events import Event
from cordon.privacy.grouping import Grouping
from cordon.training.units import Units

PATIENTS = Grouping("patient", "mlp", 256, 40)
EVENT = Event(2.0, 0.1, 10)


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


@pytest.mark.stress
@settings(max_examples=20, deadline=None)
@given(ROUNDS, st.sampled_from([0.9, 1.6, 2.5]))
def test_whatever_happens_each_patient_keeps_to_the_budget_by_an_independent_composition(rounds, budget):
    """A model in five lines plays the rule: by patient, over all ledgers, new to the run or not."""
    with TemporaryDirectory() as folder:
        history = {patient: [] for patient in "pqrs"}
        last, stopped = {}, set()  # by ledger and run: who is in its last round, and whether it ended
        for number, (name, run, noise, who, after, crash) in enumerate(rounds, start=1):
            event, held = Event(noise, 0.2, 5), ledger(folder, name, budget)
            expected, place = set(), (name, run)
            running = place in last
            for patient in who:
                mine = [event for *_, event in history[patient]]
                whole = composed([event] * (1 + after)) <= budget and not running
                fits = composed([*mine, *[event] * (1 + after * whole)]) <= budget
                if fits and (not running or patient in last[place]):
                    expected.add(patient)
            if not expected or place in stopped:
                before = list(held._log)
                ends = place not in stopped and not (running and who.isdisjoint(last[place]))
                with pytest.raises(BudgetExceeded if ends or place in stopped else UserError):
                    held.reserve(run, number, event, PATIENTS, sorted(who), after=after, accountant="rdp")
                row = {"kind": "stopped", "run": run, "round": number}
                assert list(held._log) == [*before, *([row] if ends else [])]
                stopped |= {place} if ends else set()
                continue
            last[place] = expected
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
    assert renamed.events() == []
    # Who is new has a full budget, and those who have spent theirs are left out.
    assert reserve(renamed, "c", 1, "pqr") == {"r"}
    assert reserve(renamed, "c", 2, "pqr") == {"r"}
    assert renamed.spent() == pytest.approx(budget)
    with pytest.raises(BudgetExceeded):
        renamed.reserve("c", 3, EVENT, PATIENTS, ["p", "q", "r"], accountant="rdp")


@pytest.mark.parametrize("others", ["", "q"])
@pytest.mark.parametrize("raised", [False, True])
def test_who_was_left_out_does_not_come_back_because_nobody_else_was_there(tmp_path, others, raised):
    """p has room for two of four rounds: for the last two, had the run not begun before them."""
    held = ledger(tmp_path, epsilon=composed([EVENT] * 4))
    for number in (1, 2):
        reserve(held, "a", number, "p")
    assert _taking(held, "b", 1, {"p", *others}, after=3) == set(others)
    held = ledger(tmp_path, epsilon=composed([EVENT] * (9 if raised else 4)))
    assert _taking(held, "b", 3, {"p", *others}, after=1) == set(others)
    assert _taking(held, "c", 1, {"p"}, after=1) == {"p"}


def test_who_was_left_out_in_the_midst_of_a_run_stays_out(tmp_path):
    for others in ("", "q"):
        folder = tmp_path / f"with {others}"
        held = ledger(folder, epsilon=composed([EVENT] * 3))
        reserve(held, "a", 1, "p")
        reserve(held, "b", 1, {"p", *others}, after=1)
        reserve(held, "c", 1, "p")
        assert _taking(held, "b", 2, {"p", *others}) == set(others)
        assert _taking(ledger(folder, epsilon=9.0), "b", 3, {"p", *others}) == set(others)


@pytest.mark.parametrize("others", ["", "q"])
def test_a_reservation_of_a_patient_over_the_budget_in_force_is_not_used_again(tmp_path, others):
    held = ledger(tmp_path, epsilon=9.0)
    reserve(held, "a", 1, "p")
    assert held.reserve("b", 1, EVENT, PATIENTS, sorted({"p", *others}), accountant="rdp") == {"p", *others}
    lower, size = ledger(tmp_path, epsilon=composed([EVENT])), len(held._log)
    assert _taking(lower, "b", 1, {"p", *others}, sent=False) == set(others)
    assert _taking(ledger(tmp_path, epsilon=9.0), "b", 1, {"p", *others}) == set(others)
    # Nobody paid twice, and another round at the old budget finds p left out as well.
    spent = sorted(len(one.reservations) for one in ledger(tmp_path).histories() if one.patients.any())
    assert spent == ([1, 2] if others else [2])
    shown = CliRunner().invoke(cli.main, ["ledger", "show", str(tmp_path / "north.sqlite"), "--json"])
    assert [(row["run"], row["round"]) for row in json.loads(shown.stdout)["accounts"][0]["rounds"]] == [
        ("a", 1), ("b", 1),
    ]  # fmt: skip
    assert len(lower._log) > size


def _taking(held, run, number, who, sent=True, **more):
    try:
        part = held.reserve(run, number, EVENT, PATIENTS, sorted(who), **more, accountant="rdp")
    except BudgetExceeded:
        return set()
    if sent:
        held.mark_sent(run, number)
    return part


@pytest.mark.parametrize("noise", [2.0, 3.0])
def test_one_patient_at_two_sites_of_a_plan_for_two_takes_part_in_both(tmp_path, noise):
    """Ledgers of one folder are some of the sites that the plan counts, not as many again."""
    rounds, event = 4, Event(noise, 0.1, 10, sites=2)
    one = replace(event, sites=1)
    budget = composed([one] * 2 * rounds)
    sites = {"north": "pn", "south": "ps"}
    for number in range(1, rounds + 1):
        for name, who in sites.items():
            held = ledger(tmp_path, name, budget)
            assert reserve(held, "a", number, who, event, after=rounds - number) == set(who)
            # p is counted at both in the rounds that one of them has reserved, the others too.
            assert held.spent() == pytest.approx(composed([one] * 2 * number))
    for name in sites:
        held = ledger(tmp_path, name, budget)
        assert held.epsilons()[0] == held.epsilons("a")[0] == pytest.approx(budget)
        with pytest.raises(BudgetExceeded):
            held.reserve("b", 1, event, PATIENTS, [*sites[name]], accountant="rdp")
    path = str(tmp_path / "north.sqlite")
    shown = json.loads(CliRunner().invoke(cli.main, ["ledger", "show", path, "--json"]).stdout)["cohorts"]
    assert [one["epsilon_rdp"] for one in shown] == pytest.approx([budget] * 2)


def test_a_patient_at_more_ledgers_than_the_plan_counts_pays_for_each(tmp_path):
    budget = composed([EVENT] * 3)
    event = replace(EVENT, sites=2)
    for number, name in enumerate(["north", "south", "west"], start=1):
        held = ledger(tmp_path, name, budget)
        assert reserve(held, "a", 1, "p", event) == {"p"}
        assert held.spent() == pytest.approx(composed([EVENT] * max(2, number)))
    with pytest.raises(BudgetExceeded):
        ledger(tmp_path, "east", budget).reserve("a", 1, event, PATIENTS, ["p"], accountant="rdp")


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
    (tmp_path / SALT_FILE).unlink()
    if lost == "another one":
        read_salt(tmp_path)
    left = (tmp_path / SALT_FILE).exists()
    for name in ("north", "south"):
        with pytest.raises(UserError, match=r"pseudonym\.salt: .*Bring back the file that was there"):
            ledger(tmp_path, name).reserve("b", 1, EVENT, PATIENTS, ["p"], accountant="rdp")
    assert (tmp_path / SALT_FILE).exists() == left


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


def test_rows_do_not_tell_whether_the_same_patients_took_part_in_two_runs_or_ledgers(tmp_path):
    held, south = ledger(tmp_path), ledger(tmp_path, "south")
    for where, run, who in ((held, "a", "pq"), (held, "b", "pq"), (held, "c", "pqr"), (south, "a", "pq")):
        reserve(where, run, 1, who)
    rows = [row for one in (held, south) for row in one._log.of_kind("reserved")]
    assert len({row["cohort"] for row in rows}) == 4
    alike = ledger(tmp_path / "other")  # of other patients, under another salt
    reserve(alike, "a", 1, "pq")
    assert alike._log.of_kind("reserved")[0]["cohort"] not in {row["cohort"] for row in rows}


def test_a_cohort_of_an_older_ledger_that_bare_digests_name_is_read(tmp_path):
    held, salt = ledger(tmp_path, epsilon=composed([EVENT] * 2)), read_salt(tmp_path)
    with held._log.locked():
        cohort = held._log.attach(b"".join(sorted(map(salt.digest, "pq"))))
        row = {"kind": "reserved", "run": "a", "round": 1, "unit": "patient", "declared_units": 40}
        row |= {"grouping": PATIENTS.digest, "event": EVENT.to_dict(), "cohort": cohort, "salt": salt.name}
        held._log.append(row)
    # Not sent yet: the round is asked for again, and costs nobody twice.
    assert reserve(held, "a", 1, "pqr") == {"p", "q"}
    assert held.spent() == pytest.approx(composed([EVENT]))
    assert reserve(held, "b", 1, "pr") == {"p", "r"}
    assert _taking(held, "c", 1, "pr") == {"r"}


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


@pytest.mark.parametrize(
    ("gone", "fault"),
    [
        ([".head"], r"north\.sqlite: its head record north\.head is missing"),
        ([".sqlite"], r"north\.sqlite: missing, but its north\.key is there"),
        ([".sqlite", ".key"], r"north\.sqlite: missing, but its north\.head is there"),
        ([".sqlite", ".head"], r"north\.sqlite: missing, but its north\.key is there"),
        ([".key"], r"north\.key: the key of north\.sqlite is missing"),
        ([".key", "rows"], r"north\.key: the key of north\.sqlite is missing"),
        ([".head", "rows"], r"north\.sqlite: its head record north\.head is missing"),
    ],
)
def test_a_ledger_beside_it_that_lacks_a_file_is_refused_as_an_own_one(tmp_path, gone, fault):
    for number in (1, 2):
        reserve(ledger(tmp_path), "a", number, "pq")
    for what in gone:
        if what == "rows":
            with closing(sqlite3.connect(tmp_path / "north.sqlite")) as connection, connection:
                connection.execute(f"DELETE FROM rows WHERE number > {0 if '.key' in gone else 1}")
        else:
            (tmp_path / f"north{what}").unlink()
    with pytest.raises(UserError, match=fault):
        ledger(tmp_path, "south").reserve("b", 1, EVENT, PATIENTS, ["p"], accountant="rdp")


def test_another_key_in_the_folder_is_no_ledgers(tmp_path):
    enrol([Site("north", 40, 1.0)], None, state=tmp_path, outdir=tmp_path / "run")
    assert (tmp_path / "north.key").exists()
    assert reserve(ledger(tmp_path, "south"), "a", 1, "p") == {"p"}


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


@pytest.mark.stress
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
