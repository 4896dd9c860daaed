"""Tests of cordon.auditing.self_test: what a site finds about its own code before it reserves anything."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from certificate_lab import PLAN as CERTIFIED
from conftest import ROOT
from cordon.auditing import self_test
from cordon.auditing.checks import Check, confirmed
from cordon.auditing.made_up_rows import ROWS, table_of, units_of
from cordon.auditing.made_up_site import PATIENTS, TIP
from cordon.auditing.self_test import SelfTest, examine
from cordon.auditing.training import check_training, trained_by
from cordon.errors import Unsound, UserError
from cordon.federation.messages import Task
from cordon.federation.site.participate import Participant
from cordon.federation.site.terms import Terms
from cordon.ledger.hash_chain import Chain
from cordon.ledger.log import ChainedLog
from cordon.ledger.provenance import Provenance, Verdict, code_digest, installed
from cordon.ledger.site import SiteLedger
from cordon.model.initial_weights import initial_parameters
from cordon.privacy.mechanisms import Randomness
from cordon.variants.features import FEATURES
from planted_bugs import BUGS

pytestmark = pytest.mark.statistical

PLAN = replace(CERTIFIED, run="")
NAMES = ["noise", "neighbours", "sampling", "specified", "reserving", "egress", "step bound"]


@pytest.fixture
def quickly(monkeypatch):
    """Fewer draws, and what fails is not made once more."""
    monkeypatch.setattr("cordon.auditing.updates.RELEASES", 20)
    monkeypatch.setattr(self_test, "confirmed", lambda check: check())


def new_test(folder):
    """A self-test on a new ledger, what it says, and the ledger's rows."""
    said = []
    ledger = SiteLedger(folder / "site.sqlite", epsilon=8.0, delta=1e-5)
    return SelfTest(ledger, said.append), said, lambda: [*ChainedLog(folder / "site.sqlite")]


def test_right_code_is_named_in_the_ledger_with_what_was_found_before_a_run_reserves(tmp_path):
    test, said, rows = new_test(tmp_path)
    found = test(CERTIFIED)
    assert found.verdicts == dict.fromkeys(NAMES, Verdict.PASSED)
    assert (found.code, found.seeded, found.faults) == (code_digest(), False, [])
    (row,) = rows()
    assert (row["kind"], row["run"], row["before"], row["plan"]) == (
        "tested",
        CERTIFIED.run,
        False,
        PLAN.digest,
    )
    assert {"code": code_digest(), "versions": installed().versions}.items() <= row.items()
    assert "7 of 7 checks passed, 0 failed" in said[0]
    # Again in the same run, in another process or not: nothing is checked, and nothing is noted.
    assert test(CERTIFIED) == new_test(tmp_path)[0](CERTIFIED) == found
    assert len(rows()) == 1


def test_what_passed_on_this_ledger_is_not_checked_again_while_code_and_settings_are_the_same(
    tmp_path, monkeypatch
):
    new_test(tmp_path)[0](CERTIFIED)
    asked = []
    passed = dict.fromkeys(NAMES, Verdict.PASSED)

    def counted(plan):
        asked.append(plan)
        return [], False

    monkeypatch.setattr(self_test, "examine", counted)
    test, said, rows = new_test(tmp_path)
    assert test(replace(CERTIFIED, run="later")).verdicts == passed
    assert (asked, said) == ([], ["the training code and its software passed their checks here before"])
    assert [(row["run"], row["before"]) for row in rows()] == [(CERTIFIED.run, False), ("later", True)]
    monkeypatch.setattr("cordon.auditing.self_test.installed", lambda: replace(installed(), code="cd" * 32))
    new_test(tmp_path)[0](CERTIFIED)
    monkeypatch.setattr("cordon.auditing.self_test.installed", installed)
    new_test(tmp_path)[0](replace(CERTIFIED, clip_norm=0.04))
    assert [plan.clip_norm for plan in asked] == [CERTIFIED.clip_norm, 0.04]


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("bug", BUGS)
def test_a_site_whose_code_is_broken_ends_before_it_reserves_anything(tmp_path, monkeypatch, bug):
    monkeypatch.setattr(*BUGS[bug])
    test, _, rows = new_test(tmp_path)
    ledger = SiteLedger(tmp_path / "site.sqlite", epsilon=8.0, delta=1e-5)
    monkeypatch.setattr(Participant, "answer_grid", 0.0)
    site = Participant(
        Terms("north", PATIENTS), lambda plan: units_of([table_of(plan, ROWS)], plan), FEATURES,
        ledger=ledger, say=print, test=test,
    )  # fmt: skip
    start = initial_parameters("logistic", len(FEATURES))
    task = Task(CERTIFIED, 1, PATIENTS, start, TIP)
    message = SimpleNamespace(content=task.to_records(), metadata=SimpleNamespace(message_type="train"))
    with pytest.raises(Unsound, match="is not sound: ") as refused:
        site.handle(message)
    assert "Nothing was reserved and nothing was sent" in str(refused.value)
    assert [row["kind"] for row in rows() if row["kind"] in ("reserved", "sent")] == []
    (row,) = [row for row in rows() if row["kind"] == "tested"]
    assert Verdict.FAILED in row["verdicts"].values()


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("error", [UserError("no rows"), ZeroDivisionError("none")])
def test_code_that_cannot_train_on_made_up_rows_is_refused_whatever_it_raises(tmp_path, monkeypatch, error):
    """A plan that no site could train by is refused as a plan; an error here is the code's own."""

    def raising(*arguments, **named):
        raise error

    monkeypatch.setattr("cordon.training.dpsgd.descend", raising)
    # The step bound looks at single releases.
    monkeypatch.delitem(self_test.CHECKS, "step bound")
    checks, seeded = examine(PLAN)
    assert [check.verdict for check in checks] == [Verdict.FAILED] * 6
    monkeypatch.setattr(self_test, "examine", lambda plan: (checks, seeded))
    with pytest.raises(Unsound, match="noise: the code cannot train: "):
        new_test(tmp_path)[0](CERTIFIED)


def test_a_plan_whose_bound_cannot_be_told_is_trained_by(tmp_path):
    """Its delta is too small for a lower bound; the other checks are made."""
    found = new_test(tmp_path)[0](replace(CERTIFIED, delta=1e-16))
    assert found.verdicts == dict.fromkeys(NAMES, Verdict.PASSED) | {"step bound": Verdict.UNTRIED}


def test_what_reads_trains_and_draws_is_named_by_its_version():
    assert {"torch", "numpy", "scipy", "pyarrow", "cryptography"} <= installed().versions.keys()


def test_an_agreed_plan_is_tested_before_the_site_connects(tmp_path):
    asked = []
    ledger = SiteLedger(tmp_path / "site.sqlite", epsilon=8.0, delta=1e-5)

    def test(plan):
        asked.append(plan)
        return installed()

    terms = Terms("north", PATIENTS, agreed=PLAN)
    Participant(terms, lambda plan: None, FEATURES, ledger=ledger, say=print, test=test).warm_up()
    assert asked == [PLAN]


@pytest.mark.usefixtures("quickly")
def test_seeded_training_is_told_and_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "cordon.training.dpsgd.Randomness", lambda: Randomness(np.random.default_rng(0).bytes)
    )
    checks, seeded = examine(PLAN)
    assert seeded
    assert [check.name for check in checks if check.failed][:1] == ["noise"]
    with pytest.raises(Unsound, match="seeded: not private"):
        new_test(tmp_path)[0](CERTIFIED)


def test_what_takes_too_long_stops_a_site_and_so_does_what_ends_by_itself(tmp_path, monkeypatch):
    checks, _ = examine(PLAN, seconds=0.0)
    assert [(check.name, check.verdict) for check in checks] == [(name, Verdict.UNTRIED) for name in NAMES]
    with monkeypatch.context() as patch:
        patch.setattr(self_test, "examine", lambda plan: (checks, False))
        with pytest.raises(Unsound, match=r"noise: the time for these checks, 300 s, was over"):
            new_test(tmp_path)[0](CERTIFIED)
    monkeypatch.setattr(self_test, "begin_apart", lambda: os._exit(3))
    with pytest.raises(Unsound, match="ended by themselves, with status 3"):
        examine(PLAN)


class TestCertified:
    """What an audit makes of what sites say."""

    def chain(self, tmp_path, *said):
        log = ChainedLog(tmp_path / "ledger.sqlite")
        for number, one in enumerate(said):
            row = {"kind": "decision", "run": "r", "round": 1, "identity": str(number), "site": f"h{number}",
                   "decision": "accepted"}  # fmt: skip
            about = {"trained_by": one.digest, "provenance": one.to_dict()} if one else {}
            log.append(row | about)
        chain = Chain("ledger", log._chain.key)
        for line in log._chain.lines:
            chain.add(line)
        return chain

    def test_the_same_code_whose_checks_passed_everywhere_passes(self, tmp_path):
        sound = replace(installed(), verdicts={"noise": Verdict.PASSED})
        found = check_training(self.chain(tmp_path, sound, sound), "r")
        assert found.verdict == Verdict.PASSED
        assert [site["same_code"] for site in found.figures["sites"]] == [True, True]

    @pytest.mark.parametrize(
        ("said", "reason"),
        [
            (None, "h0 says nothing of what trained"),
            (installed(), "h0 did not check what trained"),
            (Provenance("ab" * 32, {}, {"noise": Verdict.PASSED}), "at h0 other code trained than audits"),
            (replace(installed(), verdicts={"noise": Verdict.UNTRIED}), "at h0 noise was not tried"),
            (
                replace(installed(), verdicts={"noise": Verdict.PASSED, "sampling": Verdict.UNABLE}),
                "at h0 sampling was not able to refute",
            ),
        ],
        ids=["nothing", "no checks", "other code", "too late", "not able"],
    )
    def test_what_the_audit_cannot_speak_for_is_named(self, tmp_path, said, reason):
        found = check_training(self.chain(tmp_path, said), "r")
        assert (found.verdict, found.reason) == (Verdict.UNABLE, reason)

    def test_seeds_are_told_as_what_they_are(self, tmp_path):
        said = replace(installed(), verdicts={"noise": Verdict.FAILED}, seeded=True)
        chain = self.chain(tmp_path, said)
        assert check_training(chain, "r").verdict == Verdict.FAILED
        (site,) = trained_by(chain.rows, "r")
        assert "SEEDED: NOT PRIVATE" in site.statement()
        assert "noise failed" in site.statement()


SEEDED = """
import sys
from pathlib import Path
from cordon.auditing.self_test import SelfTest
from cordon.ledger.site import SiteLedger
from certificate_lab import PLAN
ledger = SiteLedger(Path(sys.argv[1]) / "site.sqlite", epsilon=8.0, delta=1e-5)
found = SelfTest(ledger, print)(PLAN)
print(found.seeded, found.verdicts["noise"])
"""


def test_the_seeded_double_goes_on_and_cannot_hide_it(tmp_path):
    double = str(ROOT / "tests" / "doubles" / "seeded")
    path = os.pathsep.join([double, *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "CORDON_TEST_SEED": "7"}
    command = [sys.executable, "-c", SEEDED, str(tmp_path), "--site", "north"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "True failed"
    (row,) = [row for row in ChainedLog(tmp_path / "site.sqlite") if row["run"] == CERTIFIED.run]
    assert row["seeded"]


def test_the_code_digest_is_of_every_python_file(tmp_path, monkeypatch):
    """Of their paths and contents, whatever else lies beside them."""
    from cordon.ledger import provenance

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.py").write_text("x = 1\n")
    (tmp_path / "c.toml").write_text("y = 1\n")
    monkeypatch.setattr(provenance, "SOURCES", tmp_path)
    digest = provenance.code_digest.__wrapped__
    first = digest()
    (tmp_path / "c.toml").write_text("y = 2\n")
    assert digest() == first
    (tmp_path / "a" / "b.py").rename(tmp_path / "a" / "c.py")
    moved = digest()
    (tmp_path / "a" / "c.py").write_text("x = 2\n")
    assert len({first, moved, digest()}) == 3


def test_a_check_that_fails_by_chance_is_made_once_more_and_one_that_fails_again_fails():
    found = {
        passes: Check.of("noise", "?", [] if passes else ["too little"], "", most="")
        for passes in (True, False)
    }
    for verdicts, expected in (([True], True), ([False, True], True), ([False, False], False)):
        left = list(verdicts)
        assert confirmed(lambda left=left: found[left.pop(0)]).passed is expected
        assert left == []
