"""Budgets that outlast one run: several runs on one state folder, planned by plan_run and played for real.

Sites are real participants and the aggregator is the real one; only Flower, which would carry the messages,
is left out. Compositions are dp-accounting's own.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from dp_accounting.pld import PLDAccountant

from bin_commands import command_of
from composition import DELTA, composed
from cordon import cli
from cordon.auditing.certificate import Subject, certificate
from cordon.auditing.claims import check_claims
from cordon.errors import FederationError, Unreachable
from cordon.federation.aggregator.checkpoint import Checkpoints
from cordon.federation.aggregator.registry import Registry
from cordon.federation.aggregator.run import Aggregation, RoundLimits, RunSetup
from cordon.federation.messages import Reply
from cordon.federation.plan import Plan, read_enrolment, read_plan
from cordon.federation.site import participate
from cordon.federation.site.terms import Terms
from cordon.ledger.hash_chain import read_private_key
from cordon.ledger.log import ChainedLog, key_path, read_log
from cordon.ledger.site import SiteLedger
from cordon.privacy.events import Event
from cordon.report.reading import read_federation, read_ledger
from cordon.training.units import Units
from cordon.variants.features import FEATURES

ROUNDS, STEPS = 4, 3
NORTH, SOUTH = [f"n{number}" for number in range(5)], [f"s{number}" for number in range(5)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = 1, 2, 3
    monkeypatch.setattr(participate.Participant, "answer_grid", 0.001)


class House:
    """A state folder as the pipeline keeps it, and the sites whose patients are in it."""

    def __init__(self, folder: Path, **patients: list[str]) -> None:
        self.folder, self.state, self.patients = folder, folder / "state", patients
        self.said: list[str] = []
        self.number = 0

    def planned(self, *options: object, **terms: object):
        """What plan_run did for the sites, and the plan that it wrote."""
        self.number += 1
        sheet, out = self.folder / "sites.csv", self.folder / f"run-{self.number}"
        rows = "".join(f"{name},20,1\n" for name in self.patients)
        sheet.write_text(f"site,declared_patients,weight\n{rows}")
        words = {
            "sites": sheet, "state": self.state, "outdir": out, "model": "logistic", "epsilon": 3.0,
            "delta": DELTA, "rounds": ROUNDS, "local_steps": STEPS, "sampling_rate": 0.5, "clip_norm": 1,
            "learning_rate": 0.5, "max_variants_per_patient": 16, **terms,
        }  # fmt: skip
        given = [str(word) for name, value in words.items() for word in (f"--{name}", value)]
        done = CliRunner().invoke(
            command_of("plan_run"), [*given, *map(str, options)], catch_exceptions=False
        )
        return done, read_plan(out / "plan.json") if done.exit_code == 0 else None

    def run(self, plan: Plan, *, epsilon: float, run_epsilon: float | None = None):
        """Play ``plan`` to its end; the model, the record and the participants' ledgers."""
        sites = read_enrolment(self.folder / f"run-{self.number}" / "aggregator" / "enrolment.json")
        ledger = ChainedLog(self.state / "aggregator" / "ledger.sqlite")
        Registry(ledger).enrol(*sites)
        room = Room(self, sites, epsilon, run_epsilon)
        aggregation = Aggregation(
            RunSetup(plan.started(), sites, FEATURES, RoundLimits(len(sites), 1.0, 1.0)),
            ledger=ledger, checkpoints=Checkpoints(self.state / "aggregator", ledger), say=self.said.append,
        )  # fmt: skip
        model = aggregation.run(room)
        aggregation._checkpoints.discard()
        return model, aggregation.record

    def reserved(self, name: str) -> list[Event]:
        return [Event(**row["event"]) for row in self.rows(name) if row["kind"] == "reserved"]

    def rows(self, name: str) -> list[dict]:
        path = self.state / ("aggregator/ledger.sqlite" if name == "aggregator" else f"sites/{name}.sqlite")
        return read_log(path, read_private_key(key_path(path)).public_key())[0].rows if path.exists() else []


class Room:
    """An exchange without a network."""

    def __init__(self, house: House, sites, epsilon, run_epsilon) -> None:
        self._sites = sites
        self._participants = {
            one: participate.Participant(
                Terms(one.name, one.declared_patients, run_epsilon=run_epsilon),
                units_of(house.patients[one.name]), FEATURES, say=house.said.append,
                ledger=SiteLedger(house.state / "sites" / f"{one.name}.sqlite", epsilon=epsilon, delta=DELTA),
            )
            for one in sites
        }  # fmt: skip

    def online(self):
        return {one: number for number, one in enumerate(self._sites, start=10)}

    def ask(self, contents, kind, deadline, *, group):
        from flwr.app import Message

        return {
            one: (Reply.from_records(self._participants[one].handle(Message(content, 10, kind))), "")
            for one, content in contents.items()
        }


def units_of(patients):
    source = np.random.default_rng(0)
    features = source.normal(size=(6 * len(patients), len(FEATURES))).astype(np.float32)
    return lambda plan: Units.group(
        features, (features[:, 0] > 0).astype(np.float32), patients * 6, unit=plan.unit
    )


@pytest.mark.stress
def test_two_runs_within_one_budget_finish_and_a_third_is_refused_before_anything_is_spent(tmp_path):
    house = House(tmp_path, north=NORTH, south=SOUTH)
    plans, finished = [], []
    for _ in range(2):
        done, plan = house.planned(run_epsilon=2.0)
        assert done.exit_code == 0, done.output
        plans.append(plan)
        finished.append(house.run(plan, epsilon=3.0, run_epsilon=2.0))
    assert plans[0] == plans[1]  # what a run costs is agreed; what was spent before changes nothing of it
    assert (plans[0].epsilon, plans[0].budget) == (2.0, 3.0)
    (first, _), (second, record) = finished
    once, twice = ([plans[0].event] * ROUNDS * runs for runs in (1, 2))
    assert 1.98 < composed(once) <= 2.0 < composed(twice) <= 3.0
    for name in ("north", "south"):
        assert house.reserved(name) == twice
        own = SiteLedger(house.state / "sites" / f"{name}.sqlite", epsilon=3.0, delta=DELTA)
        assert own.spent() == pytest.approx(composed(twice))
        shown = CliRunner().invoke(
            cli.main, ["ledger", "show", str(house.state / "sites" / f"{name}.sqlite"), "--json"]
        )
        (cohort,) = json.loads(shown.stdout)["cohorts"]
        assert (cohort["patients"], cohort["rounds"]) == (5, 2 * ROUNDS)
        assert cohort["epsilon_rdp"] == pytest.approx(composed(twice))
        assert cohort["left_by_rdp"] == pytest.approx(3.0 - composed(twice))
    assert first.privacy["epsilon"] == pytest.approx(composed(once))
    said = second.privacy
    assert said["epsilon"] == said["epsilon_rdp"] == pytest.approx(composed(twice))
    assert said["run_epsilon_rdp"] == pytest.approx(composed(once))
    assert said["epsilon_pld"] == pytest.approx(composed(twice, PLDAccountant), rel=5e-3)
    assert said["run_epsilon_pld"] == pytest.approx(composed(once, PLDAccountant), rel=5e-3)
    assert said["budget"] == 3.0
    for one in record.sites:
        assert one["status"] == "finished"
        assert one["epsilon_rdp"] == pytest.approx(composed(twice))
        assert one["run_epsilon_rdp"] == pytest.approx(composed(once))
    # Claims and certificate, by the aggregator's ledger and by a site's own.
    for path in (house.state / "aggregator" / "ledger.sqlite", house.state / "sites" / "north.sqlite"):
        chain, _ = read_log(path, read_private_key(key_path(path)).public_key())
        found = check_claims(second, record.plan, chain)
        assert found.passed, found.reason
        made = certificate(
            Subject(second, record.plan, record.sites, ChainedLog(path).tip, [], {}), [], found.figures
        )
        held = made["guarantee"]
        assert held["epsilon"] == held["epsilon_rdp"] == pytest.approx(composed(twice))
        assert held["run_epsilon_rdp"] == pytest.approx(composed(once))
        assert held["run_epsilon_pld"] == pytest.approx(composed(once, PLDAccountant), rel=5e-3)
        assert (held["accountant"], held["budget"]) == ("RDP", 3.0)
    # The report reads the same.
    (tmp_path / "federation.json").write_text(json.dumps(record.to_dict()))
    read = read_federation(tmp_path / "federation.json")
    assert read.budget == 3.0
    assert {one.epsilon_rdp for one in read.sites} == {said["epsilon"]}
    export = CliRunner().invoke(
        cli.main, ["ledger", "export", str(house.state / "aggregator" / "ledger.sqlite")]
    )
    (tmp_path / "aggregator.jsonl").write_text(export.stdout)
    assert sum(event.rounds for event in read_ledger(tmp_path / "aggregator.jsonl").events) == 2 * len(twice)

    before = [house.rows(name) for name in ("aggregator", "north", "south")]
    done, _ = house.planned(run_epsilon=2.0)
    assert done.exit_code == 3
    assert "no site has room for a run of epsilon 2 (unit: one patient; delta 1e-05;" in done.output
    assert "north was charged epsilon" in done.output
    assert "scope: all runs in the ledger), by RDP" in done.output
    assert "of a lifetime's 3" in done.output
    assert [house.rows(name) for name in ("aggregator", "north", "south")] == before
    assert not (tmp_path / "run-3" / "plan.json").exists()


def test_a_plan_that_looked_at_no_ledger_is_stopped_by_the_sites_before_anything_is_spent(tmp_path):
    """As an operator's may be, or one that was resumed."""
    house = House(tmp_path, north=NORTH, south=SOUTH)
    _, plan = house.planned(epsilon=2.0)
    house.run(plan, epsilon=2.5)
    fresh = Plan.calibrated(**{**_settings(plan), "epsilon": 2.0, "lifetime_epsilon": 2.5})
    with pytest.raises(
        Unreachable, match="the site stopped by itself: its own budget allows no further round"
    ):
        house.run(fresh, epsilon=2.5)
    assert house.reserved("north") == [plan.event] * ROUNDS
    assert any(
        "4 rounds from round 1 on would bring what is spent over all runs" in line for line in house.said
    )


def _settings(plan):
    left_out = ("run", "noise_multiplier", "lifetime_epsilon")
    return {name: value for name, value in plan.to_dict().items() if name not in left_out}


@pytest.mark.stress
def test_noise_is_calibrated_on_what_remains_so_that_every_round_of_a_second_run_fits(tmp_path):
    house = House(tmp_path, north=NORTH, south=SOUTH)
    _, plan = house.planned(epsilon=2.0)
    house.run(plan, epsilon=2.0)
    done, again = house.planned(epsilon=4.0)
    assert done.exit_code == 0
    spent, run = [plan.event] * ROUNDS, [again.event] * ROUNDS
    assert 0.999 * 4.0 < composed([*spent, *run]) <= 4.0
    # What the run costs by itself, which is more than the difference of the two epsilons.
    assert again.epsilon == pytest.approx(composed(run))
    assert 2.0 < again.epsilon < 4.0
    assert again.budget == 4.0
    model, record = house.run(again, epsilon=4.0)
    assert len(record.rounds) == ROUNDS
    assert house.reserved("north") == [*spent, *run]
    assert model.privacy["epsilon"] == pytest.approx(composed([*spent, *run]))
    # A whole budget spent is a whole budget spent: what a calibration leaves is no budget for a run.
    done, _ = house.planned(epsilon=4.0)
    assert done.exit_code == 3
    assert "nothing is left for a run: north was charged epsilon 4 (unit: one patient" in done.output


@pytest.mark.stress
def test_a_site_that_was_charged_more_than_others_decides_what_is_left(tmp_path):
    house = House(tmp_path, north=NORTH, south=SOUTH)
    _, plan = house.planned(epsilon=3.0, run_epsilon=1.0)
    house.run(plan, epsilon=3.0)
    more = House(tmp_path, north=NORTH, west=["w1", "w2"])
    more.number = house.number
    done, both = more.planned(epsilon=3.0)
    assert composed([plan.event] * ROUNDS + [both.event] * ROUNDS) > 0.999 * 3.0
    # With --run_epsilon, who has no room takes no part, and is named.
    done, dear = more.planned(epsilon=3.0, run_epsilon=3.0)
    assert done.exit_code == 0
    assert composed([dear.event] * ROUNDS) > 0.999 * 3.0
    assert (
        "site north: what it was charged before leaves no room for this run in a lifetime's budget of "
        "epsilon 3 (unit: one patient; delta 1e-05; " in done.stderr
    )
    assert "site west" not in done.stderr


def test_a_renamed_site_is_no_new_patient_set_and_new_patients_find_a_full_budget(tmp_path):
    house = House(tmp_path, north=NORTH, south=SOUTH)
    _, plan = house.planned()
    house.run(plan, epsilon=3.0)
    # Other names, the same patients: keys, ledgers and the aggregator's account are fresh.
    renamed = House(tmp_path, north2=NORTH, south2=SOUTH)
    renamed.number = house.number
    _, again = renamed.planned()
    assert again == plan
    with pytest.raises(Unreachable, match="stopped by itself"):
        renamed.run(again, epsilon=3.0)
    assert renamed.reserved("north2") == renamed.reserved("south2") == []
    # New patients beside old ones: they take part, with a full budget, and the old ones do not.
    mixed = House(tmp_path, north3=[*NORTH, "new1", "new2"], south3=["new3"])
    mixed.number = renamed.number
    _, plan3 = mixed.planned()
    assert plan3 == plan
    model, _ = mixed.run(plan3, epsilon=3.0)
    assert model.privacy["epsilon"] == pytest.approx(composed([plan.event] * ROUNDS))
    held = SiteLedger(mixed.state / "sites" / "north3.sqlite", epsilon=3.0, delta=DELTA)
    (history,) = held.histories()
    assert history.patients.sum() == 2
    assert held.spent() == pytest.approx(composed([plan.event] * ROUNDS))
    assert [line for line in mixed.said if "5 of 7 patients take no part" in line]
    assert len([line for line in mixed.said if "take no part" in line]) == 1


def test_what_a_site_allows_a_run_is_a_term_of_its_own(tmp_path):
    house = House(tmp_path, north=NORTH, south=SOUTH)
    _, plan = house.planned(run_epsilon=2.0)
    with pytest.raises(FederationError, match=r"4 rounds cost epsilon 2 .* north allows a run 1\.9"):
        house.run(plan, epsilon=3.0, run_epsilon=1.9)
    assert house.reserved("north") == []


@pytest.mark.stress
def test_a_run_by_pld_has_less_noise_and_every_ledger_and_statement_is_held_against_it(tmp_path):
    house = House(tmp_path, north=NORTH, south=SOUTH)
    _, rdp = house.planned()
    _, pld = house.planned(accountant="pld")
    events = [pld.event] * ROUNDS
    assert pld.noise_multiplier < 0.97 * rdp.noise_multiplier
    assert composed(events) > 3.0
    model, record = house.run(pld, epsilon=3.0)
    assert [one["status"] for one in record.sites] == ["finished"] * 2
    said = model.privacy
    assert said["accountant"] == "PLD"
    assert said["epsilon"] == said["epsilon_pld"] == pytest.approx(composed(events, PLDAccountant), rel=5e-3)
    assert said["epsilon_pld"] <= 3.0 < said["epsilon_rdp"] == pytest.approx(composed(events))
    path = house.state / "aggregator" / "ledger.sqlite"
    chain, _ = read_log(path, read_private_key(key_path(path)).public_key())
    found = check_claims(model, record.plan, chain)
    assert found.passed, found.reason
    subject = Subject(model, record.plan, record.sites, ChainedLog(path).tip, [], {})
    made = certificate(subject, [], found.figures)
    assert made["guarantee"]["accountant"] == "PLD"
    assert made["guarantee"]["epsilon_rdp"] == said["epsilon_rdp"]
    assert {row["accountant"] for row in chain.rows if row["kind"] == "asked"} == {"pld"}
    assert [row["accountant"] for row in house.rows("north") if row["kind"] == "budget"] == ["pld"]
    shown = CliRunner().invoke(cli.main, ["ledger", "show", str(path)])
    assert shown.stdout.count("left by PLD: 0.0") == 2
    done, _ = house.planned(accountant="pld")
    assert done.exit_code == 3
    assert "by PLD" in done.output


@pytest.mark.stress
def test_an_operator_plans_by_the_aggregators_ledger(tmp_path):
    """Hospitals keep their own ledgers: the aggregator's tells what each key was charged."""
    house = House(tmp_path, north=NORTH, south=SOUTH)
    _, plan = house.planned(run_epsilon=2.0)
    house.run(plan, epsilon=3.0)
    elsewhere = House(tmp_path / "operator", north=NORTH, south=SOUTH)
    elsewhere.folder.mkdir()
    ledger = house.state / "aggregator" / "ledger.sqlite"
    _, again = elsewhere.planned("--ledger", ledger)
    run = [again.event] * ROUNDS
    assert 0.999 * 3.0 < composed([plan.event] * ROUNDS + run) <= 3.0
    done, _ = elsewhere.planned("--ledger", ledger, run_epsilon=2.9)
    assert done.exit_code == 3
    (tmp_path / "no.sqlite").write_bytes(ledger.read_bytes())
    done, _ = elsewhere.planned("--ledger", tmp_path / "no.sqlite")
    assert done.exit_code == 2
    assert "its key is not beside it" in done.output
    (tmp_path / "no.key").write_bytes(ledger.with_suffix(".key").read_bytes())
    done, _ = elsewhere.planned("--ledger", tmp_path / "no.sqlite")
    assert done.exit_code == 2
    assert "its head record no.head is missing" in done.output
    done, _ = elsewhere.planned(run_epsilon=3.5)
    about = "(unit: one patient; delta 1e-05; Poisson-sampled Gaussian; adjacency: add or remove one unit)"
    assert (
        f"a run of epsilon 3.5 {about} is more than what all runs may cost, a lifetime's epsilon 3 {about}"
        in (done.output)
    )
