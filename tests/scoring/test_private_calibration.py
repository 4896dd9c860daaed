"""Tests of private_calibration: what one unit can move, the noise, and what the ledger holds."""

import json
import math
import re
from dataclasses import astuple, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bin_commands import command_of
from conftest import ROOT, table_row
from cordon.auditing.claims import risks, spent
from cordon.errors import BudgetExceeded, UserError
from cordon.federation.plan import Plan, read_plan
from cordon.ledger.log import ChainedLog
from cordon.ledger.site import CALIBRATION, SiteLedger
from cordon.ledger.spending import accounts
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model
from cordon.privacy.accountants import epsilon_pld, epsilon_rdp
from cordon.privacy.events import GAUSSIAN
from cordon.privacy.grouping import Grouping
from cordon.privacy.guarantee import ADJACENCY, LIFETIME, RUN
from cordon.privacy.mechanisms import Randomness
from cordon.privacy.tradeoff import risk
from cordon.scoring.private_calibration import (
    SIZE,
    Settings,
    _labelled,
    calibrate_privately,
    contributions,
    estimate,
    noisy,
    sums,
)
from cordon.scoring.score import Scoring, _own_header
from cordon.variants.features import FEATURES
from cordon.variants.same_person import MERGE, WARN
from cordon.variants.table import LABELLED, write_table

ASKED = Settings(
    unit="patient", epsilon=1.0, delta=1e-5, accountant="rdp", sites_per_patient=1, same_person=WARN,
    sensitivity="0.99", most_rows=256,
)  # fmt: skip
UNITS = st.lists(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(0, 1)), min_size=1, max_size=40),
    min_size=1, max_size=6,
)  # fmt: skip


class Fake:
    """A model that scores by its first feature."""

    architecture = "mlp"
    hash = "abc123"
    features = FEATURES
    privacy = {}  # noqa: RUF012

    def score(self, features):
        return features[:, 0].astype(np.float64)


class Forbidden(Fake):
    """A model that must not be asked."""

    def score(self, features):
        raise AssertionError("patients' rows were looked at")


def rows_of(units):
    """Scores, labels and owners of units that are each a list of (score, label)."""
    scores = np.array([score for unit in units for score, _ in unit])
    labels = np.array([label for unit in units for _, label in unit], dtype=np.int8)
    return scores, labels, np.repeat(np.arange(len(units)), [len(unit) for unit in units])


def drawn(patients, seed, rows=256):
    """Scores, labels and owners of patients whose real alleles have log-odds 0.7 score + 0.8."""
    source = np.random.default_rng(seed)
    scores = source.normal(1.0, 3.0, patients * rows) + np.repeat(source.normal(0, 0.3, patients), rows)
    labels = (source.random(len(scores)) < 1 / (1 + np.exp(-(0.7 * scores + 0.8)))).astype(np.int8)
    return scores, labels, np.repeat(np.arange(patients), rows)


def tables(patients=60, rows=256, seed=1):
    """What `calibrate_privately` is given: one table a patient."""
    scores, labels, owners = drawn(patients, seed, rows)
    for patient in range(patients):
        features = np.zeros((rows, len(FEATURES)), dtype=np.float32)
        features[:, 0] = scores[owners == patient]
        yield features, labels[owners == patient].tolist(), [f"p{patient}"] * rows


def ledger(folder, epsilon=8.0, delta=1e-5):
    return SiteLedger(folder / "a.sqlite", epsilon=epsilon, delta=delta)


def privately(model, given_tables, asked, held, patients=None, **changes):
    """`calibrate_privately` at a site that declared 60 patients."""
    terms = {"declared_patients": 60, "say": print} | changes
    return calibrate_privately(model, given_tables, "a", asked, held, patients, **terms)


@pytest.mark.parametrize("unit", ["patient", "variant"])
@pytest.mark.parametrize("sensitivity", ["0.9", "0.995"])
@given(UNITS, st.sampled_from([1, 3, 20, 256]), st.data())
@settings(deadline=None)
def test_one_unit_moves_the_sums_by_at_most_one_whatever_its_rows(unit, sensitivity, units, most, data):
    asked = replace(ASKED, unit=unit, sensitivity=sensitivity, most_rows=most)
    if unit == "variant":
        units = [[row] for owned in units for row in owned]
    gone = data.draw(st.integers(0, len(units) - 1))
    others = units[:gone] + units[gone + 1 :]
    moved = sums(*rows_of(units), asked) - sums(*rows_of(others), asked)
    assert 0 < np.linalg.norm(moved) < 1


@pytest.mark.parametrize("rows", [1, 5_000, 200_000])
def test_a_patient_of_many_rows_or_of_equal_ones_moves_them_no_further(rows):
    for score in (-1e9, 0.0, 1e9):
        for label in (0, 1):
            one = [np.full(rows, score), np.full(rows, label, dtype=np.int8), np.zeros(rows, dtype=np.int64)]
            assert np.linalg.norm(contributions(*one, ASKED)) < 1


def test_units_add_up_however_many_are_in_memory(monkeypatch):
    scores, labels, owners = drawn(20, seed=2, rows=7)
    mixed = np.random.default_rng(0).permutation(len(owners))
    whole = contributions(scores, labels, owners, ASKED).sum(axis=0)
    monkeypatch.setattr("cordon.scoring.private_calibration.TOGETHER", 3)
    np.testing.assert_allclose(sums(scores[mixed], labels[mixed], owners[mixed], ASKED), whole)


@pytest.mark.statistical
def test_the_noise_has_the_deviation_that_the_ledger_is_told():
    deviation = ASKED.event.noise_multiplier
    draws = np.concatenate([noisy(np.zeros(SIZE), deviation, Randomness()) for _ in range(200)])
    # Of n normal draws, the variance is off by more than five of its deviations in 6e-7 of all trials.
    assert draws.var() / deviation**2 == pytest.approx(1, abs=5 * math.sqrt(2 / len(draws)))
    first, second = draws[:SIZE], draws[SIZE : 2 * SIZE]
    assert (first != second).mean() > 0.9


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-6), (1.0, 1e-5), (4.0, 1e-5)])
def test_its_event_costs_what_it_says_by_dp_accounting_itself(epsilon, delta):
    from dp_accounting import GaussianDpEvent
    from dp_accounting.rdp import RdpAccountant

    event = replace(ASKED, epsilon=epsilon, delta=delta).event
    assert (event.sampling_rate, event.steps, event.mechanism) == (1.0, 1, GAUSSIAN)
    alone = RdpAccountant().compose(GaussianDpEvent(event.noise_multiplier)).get_epsilon(delta)
    assert 0.99 * epsilon <= alone <= epsilon


def test_the_ledger_composes_it_with_all_that_was_spent(tmp_path):
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
    from dp_accounting.rdp import RdpAccountant

    plan = Plan.calibrated(
        model="mlp", unit="patient", epsilon=4.0, delta=1e-5, rounds=1, local_steps=10, sampling_rate=0.5,
        clip_norm=1.0, learning_rate=1.0, max_variants_per_patient=256,
    )  # fmt: skip
    held = ledger(tmp_path)
    held.reserve("run", 1, plan.event, plan.grouping(60), accountant="rdp")
    found = privately(Fake(), tables, ASKED, held)
    accountant = RdpAccountant()
    step = PoissonSampledDpEvent(0.5, GaussianDpEvent(plan.noise_multiplier))
    accountant.compose(SelfComposedDpEvent(step, 10))
    accountant.compose(GaussianDpEvent(ASKED.event.noise_multiplier))
    assert held.spent() == pytest.approx(accountant.get_epsilon(1e-5))
    assert found.cost["spent_by_site"] == held.spent()
    (account,) = accounts(ChainedLog(tmp_path / "a.sqlite"))
    assert [(turn.run[:12], turn.state) for turn in account.rounds] == [
        ("run", "reserved"), (CALIBRATION, "sent"),
    ]  # fmt: skip
    assert account.rounds[-1].epsilon_rdp == held.spent()


def test_what_is_fitted_keeps_its_promise(tmp_path):
    found = privately(Fake(), lambda: tables(400), ASKED, ledger(tmp_path))
    scores, labels, _ = drawn(400, seed=9)
    kept = (found.curves["SNV"](scores[labels == 1]) >= found.threshold("0.99")).mean()
    # The margin is two deviations; grid and other patients add their own.
    assert 0 < found.margin < 0.01
    assert kept == pytest.approx(0.99, abs=2.5 * found.margin + 0.003)
    assert found.curves["SNV"] == found.curves["indel"]
    # One draw in forty has a slope beyond 0.2; hardly ever have three of five.
    more = [
        privately(Fake(), lambda: tables(400), ASKED, ledger(tmp_path / str(number))) for number in range(4)
    ]
    curves = [astuple(one.curves["SNV"]) for one in (found, *more)]
    assert all(slope == same for slope, same, _ in curves)
    assert np.median([slope for slope, _, _ in curves]) == pytest.approx(0.7, abs=0.2)
    assert np.median([intercept for _, _, intercept in curves]) == pytest.approx(0.8, abs=0.3)
    assert (found.rows, found.fitted) == (None, True)


@pytest.mark.parametrize("sensitivity", ["0.9", "0.95", "0.99"])
@pytest.mark.parametrize("unit", ["patient", "variant"])
def test_without_noise_the_estimate_is_the_exact_one_to_a_bin(unit, sensitivity):
    asked = replace(ASKED, unit=unit, sensitivity=sensitivity)
    scores, labels, owners = drawn(100, seed=3)
    owners = owners if unit == "patient" else np.arange(len(owners))
    found = estimate(sums(scores, labels, owners, asked), 1e-9, asked)
    raw = (found["threshold"] - found["intercept"]) / found["slope"]
    exact = np.quantile(scores[labels == 1], 1 - float(sensitivity))
    assert raw == pytest.approx(exact, abs=0.25)
    assert (found["slope"], found["intercept"]) == (
        pytest.approx(0.7, abs=0.08), pytest.approx(0.8, abs=0.1),
    )  # fmt: skip


def test_few_patients_get_a_fixed_threshold_that_promises_nothing(tmp_path):
    found = privately(Fake(), lambda: tables(2), ASKED, ledger(tmp_path))
    assert (found.fitted, found.calibrated, found.margin) == (False, True, None)
    fixed = {"0.99": pytest.approx(math.log(0.01 / 0.99))}
    assert found.thresholds == {"SNV": fixed, "indel": fixed}
    assert "promises no share of the real alleles" in found.rule("0.99")
    assert found.origin.startswith(
        "private figures of site a's labelled samples, at epsilon 1 (unit: one pat"
    )


def test_it_is_paid_for_once_and_stays_the_same_whatever_the_rows_become(tmp_path):
    first = privately(Fake(), tables, ASKED, ledger(tmp_path))
    rows = len(ChainedLog(tmp_path / "a.sqlite"))
    for given_now in (tables, lambda: tables(3, seed=8)):
        assert privately(Forbidden(), given_now, ASKED, ledger(tmp_path)) == first
    assert len(ChainedLog(tmp_path / "a.sqlite")) == rows


@pytest.mark.parametrize(
    "changes",
    [{"epsilon": 0.5}, {"sensitivity": "0.9"}, {"most_rows": 128}, {"sites_per_patient": 2},
     {"accountant": "pld"}, {"same_person": MERGE}, {"model": "def456"}],
)  # fmt: skip
def test_another_calibration_is_another_release(tmp_path, changes):
    held = ledger(tmp_path)
    privately(Fake(), tables, ASKED, held)
    before = held.spent()
    model = Fake()
    model.hash = changes.pop("model", model.hash)
    privately(model, tables, replace(ASKED, **changes), held)
    assert held.spent() > before
    assert len(held.events()) == 2


def test_what_was_reserved_and_never_computed_is_used_again(tmp_path):
    def broken():
        raise OSError("killed")

    with pytest.raises(OSError, match="killed"):
        privately(Fake(), broken, ASKED, ledger(tmp_path))
    held = ledger(tmp_path)
    assert epsilon_rdp(held.events(), 1e-5) == pytest.approx(1.0, rel=0.01)
    privately(Fake(), tables, ASKED, held)
    assert len(held.events()) == 1


def test_without_room_nothing_is_looked_at_and_the_remedy_is_named(tmp_path):
    held = ledger(tmp_path, epsilon=0.9)
    with pytest.raises(
        BudgetExceeded,
        match=r"site a has no room for a private calibration, of epsilon 1 \(unit: one patient; delta 1e-05; "
        r".*\), by RDP, paid once\. .* over all runs to epsilon .*by PLD, which is more than the site's "
        r"budget for a lifetime, epsilon 0\.9 \(unit: .*--calibration none, or a smaller --calib",
    ):
        privately(Forbidden(), tables, ASKED, held)
    assert held.events() == []


def test_each_patient_pays_for_what_it_takes_part_in_and_who_has_no_room_does_not(tmp_path):
    held, names = ledger(tmp_path, epsilon=2.0), [f"p{number}" for number in range(60)]
    held.reserve(
        "run",
        1,
        replace(ASKED, epsilon=1.9).event,
        Grouping("patient", "mlp", 256, 9),
        names[:30],
        accountant="rdp",
    )
    found = privately(Fake(), tables, ASKED, held, names)
    assert found.cost["spent_by_site"] == pytest.approx(1.9, rel=0.01)
    assert sorted(int(history.patients.sum()) for history in held.histories()) == [30, 30]
    # Those who take part are looked at with all their rows, and no one else.
    model, settings_ = Fake(), ASKED
    scores, _, owners = _labelled(model, tables(), settings_, frozenset(names[30:]))
    assert len(np.unique(owners)) == 30
    assert len(scores) == 30 * 256


def test_one_person_under_two_ids_adds_one_vector_and_has_one_budget(tmp_path):
    held, names = ledger(tmp_path, epsilon=2.0), [f"p{number}" for number in range(60)]
    one_id = {"p0": "p0", "p1": "p0"}

    def only(*taking):
        return _labelled(Fake(), (table for table in tables() if table[2][0] in taking), ASKED, None, one_id)

    assert np.linalg.norm(sums(*only("p0", "p1"), ASKED)) < 1
    assert len(np.unique(only("p0", "p1", "p2")[2])) == 2
    # Under either id the person spent what leaves no room.
    spends = replace(ASKED, epsilon=1.9).event
    held.reserve("run", 1, spends, Grouping("patient", "mlp", 256, 9), ["p1"], accountant="rdp")
    privately(Fake(), tables, ASKED, held, names, one_id=one_id)
    assert sorted(int(history.patients.sum()) for history in held.histories()) == [1, 58]


def test_whoever_is_at_several_sites_is_within_epsilon_at_all_of_them_together(tmp_path):
    from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
    from dp_accounting.rdp import RdpAccountant

    asked = replace(ASKED, sites_per_patient=2)
    found = privately(Fake(), tables, asked, ledger(tmp_path))
    released = GaussianDpEvent(found.cost["noise_multiplier"])
    at_both = RdpAccountant().compose(SelfComposedDpEvent(released, 2)).get_epsilon(1e-5)
    assert 0.99 <= at_both <= 1.0
    (event,) = ledger(tmp_path).events()
    assert (event.noise_multiplier, event.sites) == (found.cost["noise_multiplier"], 2)
    assert found.cost["spent_by_site"] == pytest.approx(at_both)
    assert found.stated.endswith(", by RDP, of a person at up to 2 sites")
    (header, *_) = _own_header(Scoring(Fake(), found, "0.99"))
    assert "CalibrationEpsilon=1.0," in header
    assert "CalibrationSitesPerPatient=2," in header


def test_beside_training_that_is_held_against_pld_it_is_held_against_pld(tmp_path):
    asked, names = replace(ASKED, accountant="pld"), [f"p{number}" for number in range(60)]
    assert asked.event.noise_multiplier < 0.97 * ASKED.event.noise_multiplier
    plan = Plan.calibrated(
        model="mlp", unit="patient", epsilon=8.0, delta=1e-5, rounds=2, local_steps=10, sampling_rate=0.5,
        clip_norm=1.0, learning_rate=1.0, max_variants_per_patient=256, accountant="pld",
        beside=[asked.event],
    )  # fmt: skip
    held = ledger(tmp_path)
    for number in (1, 2):
        held.reserve("run", number, plan.event, plan.grouping(60), names, accountant="pld")
    assert epsilon_rdp([*held.events(), asked.event], 1e-5) > 8  # by RDP there would be no room
    found = privately(Fake(), tables, asked, held, names)
    assert found.cost["accountant"] == "PLD"
    assert epsilon_pld(held.events(), 1e-5) <= 8
    assert {row["accountant"] for row in ChainedLog(tmp_path / "a.sqlite") if row["kind"] == "budget"} == {
        "pld"
    }


@pytest.mark.parametrize("unit", ["patient", "variant"])
def test_a_delta_too_large_for_the_declared_patients_is_refused_and_a_large_one_told(tmp_path, unit):
    said, units = [], 60 if unit == "patient" else 60 * 256
    asked, held = replace(ASKED, unit=unit, delta=0.09 / units), ledger(tmp_path, delta=0.09 / units)
    privately(Fake(), tables, asked, held, say=said.append)
    assert said[0].startswith(
        f"site a: delta {0.09 / units:g} is above 0.001 over its {units} declared units"
    )
    for delta, own in ((0.11 / units, 1e-9), (1e-9, 0.11 / units)):
        folder = tmp_path / f"{own}"
        folder.mkdir()
        held = ledger(folder, delta=own)
        with pytest.raises(UserError, match=rf"is above 0\.1 over its {units} declared units"):
            privately(Forbidden(), tables, replace(asked, delta=delta), held)
        assert held.events() == []


def test_a_ledger_of_another_unit_is_refused(tmp_path):
    held = ledger(tmp_path)
    held.reserve(
        "run", 1, replace(ASKED, epsilon=0.1).event, Grouping("variant", "mlp", 1, 9), accountant="rdp"
    )
    with pytest.raises(UserError, match="counts per patient"):
        privately(Forbidden(), tables, ASKED, held)


def test_the_ledger_tells_nothing_of_the_rows(tmp_path):
    privately(Fake(), tables, ASKED, ledger(tmp_path))
    reserved, sent = [row for row in ChainedLog(tmp_path / "a.sqlite") if row["kind"] != "budget"]
    common = {"kind", "run", "round", "previous", "hash", "signature"}
    assert set(reserved) - common == {"unit", "declared_units", "grouping", "event"}
    assert set(sent) - common == {"released"}
    assert set(sent["released"]) == {"slope", "intercept", "threshold", "margin", "reason"}


def test_a_calibration_is_no_part_of_what_a_model_says_that_it_cost(tmp_path):
    held = ledger(tmp_path)
    event = replace(ASKED, epsilon=2.0).event
    held.reserve("run", 1, event, Grouping("patient", "mlp", 256, 9), accountant="rdp")
    held.mark_sent("run", 1)
    privately(Fake(), tables, ASKED, held)
    (own,) = spent(ChainedLog(tmp_path / "a.sqlite").chain, "run")
    assert (own.events, own.beside) == ((event,), (ASKED.event,))
    # What the patients spent in their lives counts both.
    plan = Plan.calibrated(
        model="mlp", unit="patient", epsilon=8.0, delta=1e-5, rounds=1, local_steps=1, sampling_rate=0.5,
        clip_norm=1.0, learning_rate=1.0, max_variants_per_patient=256,
    )  # fmt: skip
    together = risk((event, ASKED.event), unit="patient", delta=1e-5).to_dict()
    assert [item["scope"] for item in risks([own], plan)] == [RUN, LIFETIME]
    assert risks([own], plan)[1] == {"scope": LIFETIME, **together}


def test_a_plan_leaves_room_for_it_and_not_more():
    terms = {
        "model": "mlp", "unit": "patient", "epsilon": 8.0, "delta": 1e-5, "rounds": 10, "local_steps": 10,
        "sampling_rate": 0.5, "clip_norm": 1.0, "learning_rate": 1.0, "max_variants_per_patient": 256,
    }  # fmt: skip
    plan = Plan.calibrated(**terms)
    left = Plan.calibrated(**terms, beside=[ASKED.event])
    assert left.budget == 8.0
    both = epsilon_rdp([*[left.event] * 10, ASKED.event], 1e-5)
    assert 0.99 * 8 <= both <= 8
    assert left.epsilon == epsilon_rdp([left.event] * 10, 1e-5) < 8
    # Gaussian costs add by their squares: an eighth of epsilon takes little of the noise.
    assert plan.noise_multiplier < left.noise_multiplier < 1.05 * plan.noise_multiplier


# The command ------------------------------------------------------------------------------------------------


@pytest.fixture
def labelled(tmp_path):
    """A model's file, and the tables of four patients."""
    model = tmp_path / "model.safetensors"
    source = np.random.default_rng(4)
    parameters = {
        name: source.normal(size=value.shape).astype(np.float32)
        for name, value in initial_parameters("logistic", len(FEATURES)).items()
    }
    made = Model("logistic", FEATURES, parameters, {"unit": "patient"})
    made.save(model)
    paths = []
    for patient in range(4):
        features = source.random((50, len(FEATURES)), dtype=np.float32)
        real = source.random(50) < 1 / (1 + np.exp(-made.score(features)))
        rows = [
            table_row(
                **dict(zip(FEATURES, values.tolist(), strict=True)), contig="chr1", position=place + 1,
                label=int(label), patient=f"p{patient}",
            )
            for place, (values, label) in enumerate(zip(features, real, strict=True))
        ]  # fmt: skip
        paths.append(tmp_path / f"p{patient}.parquet")
        write_table(pa.Table.from_pylist(rows, schema=LABELLED), paths[-1])
    return model, paths


def calibrated(command, folder, model, paths, *words):
    given_tables = [word for path in paths for word in ("--variants", path)]
    line = ["--model", model, *given_tables, "--site", "a", *words, "--output", folder / "c.json"]
    command("calibrate_scores", *map(str, line))
    return json.loads((folder / "c.json").read_text())


def declared(folder, patients=60):
    sheet = folder / "sites.csv"
    sheet.write_text(f"site,declared_patients,weight\na,{patients},1\n")
    return sheet


def test_without_calibration_no_patient_moves_anything(tmp_path, command, labelled):
    model, paths = labelled
    whole = calibrated(command, tmp_path, model, paths, "--mode", "none")
    assert calibrated(command, tmp_path, model, paths[1:], "--mode", "none") == whole
    assert calibrated(command, tmp_path, model, [], "--mode", "none") == whole
    assert whole["curves"] == {kind: {"a": 1.0, "b": 1.0, "c": 0.0} for kind in ("SNV", "indel")}
    assert whole["rows"] is None
    # By the default, one patient less moves all of them.
    exact = calibrated(command, tmp_path, model, paths)
    assert calibrated(command, tmp_path, model, paths[1:])["thresholds"] != exact["thresholds"]


def test_the_command_pays_from_the_sites_ledger(tmp_path, command, labelled):
    model, paths = labelled
    words = ["--mode", "private", "--state", tmp_path / "sites", "--epsilon", 8, "--delta", "1e-5"]
    words += ["--sites", declared(tmp_path), "--accountant", "rdp", "--calibration_epsilon", 1]
    made = calibrated(command, tmp_path, model, paths, *words)
    held = SiteLedger(tmp_path / "sites" / "a.sqlite", epsilon=8, delta=1e-5)
    assert held.spent() == pytest.approx(1.0, rel=0.01)
    assert made["cost"] | {"noise_multiplier": None, "spent_by_site": None} == {
        "unit": "patient", "epsilon": 1.0, "delta": 1e-5, "accountant": "RDP", "mechanism": GAUSSIAN,
        "adjacency": ADJACENCY, "sites_per_patient": 1, "noise_multiplier": None, "sampling_rate": 1.0,
        "steps": 1, "spent_by_site": None, "spent_mechanism": GAUSSIAN,
    }  # fmt: skip
    assert calibrated(command, tmp_path, model, paths[1:], *words) == made
    assert held.spent() == pytest.approx(1.0, rel=0.01)
    unused = calibrated(command, tmp_path, model, [], *words[:-1], "2")
    assert unused["reason"] == "site a gave no labelled sample to calibrate on"
    assert len(held.events()) == 1


def test_what_bounds_a_sites_budget_reaches_the_calibration(tmp_path, command, labelled):
    """Accountant, sites of a person, merged patients and declared patients, all from the command line."""
    model, _ = labelled
    rows = [
        table_row(
            contig=f"chr{place // 12 + 1}", position=1 + place % 12 * 10_000_000 + step, label=step % 2,
            zygosity="heterozygous", bcftools_pass=True,
        )
        for place in range(36) for step in range(6)
    ]  # fmt: skip
    paths = []
    for patient in ("p0", "p1"):
        own = [row | {"patient": patient} for row in rows]
        paths.append(tmp_path / f"{patient}-{len(paths)}.parquet")
        write_table(pa.Table.from_pylist(own, schema=LABELLED), paths[-1])
    words = ["--mode", "private", "--epsilon", 8, "--delta", "1e-5", "--calibration_epsilon", 1]
    words += ["--accountant", "pld", "--sites", declared(tmp_path), "--sites_per_patient", 2]
    asked = replace(ASKED, accountant="pld", sites_per_patient=2)
    for same_person in (WARN, MERGE):
        state = tmp_path / same_person
        held = SiteLedger(state / "a.sqlite", epsilon=8, delta=1e-5)
        before = replace(asked, epsilon=7.99).event
        held.reserve("run", 1, before, Grouping("patient", "logistic", 256, 9), ["p1"], accountant="pld")
        given_words = [*words, "--state", state, "--same_person", same_person]
        if same_person == WARN:
            made = calibrated(command, tmp_path, model, paths, *given_words)
            assert made["cost"]["noise_multiplier"] == asked.event.noise_multiplier
            assert (made["cost"]["accountant"], made["cost"]["sites_per_patient"]) == ("PLD", 2)
            assert len(SiteLedger(state / "a.sqlite", epsilon=8, delta=1e-5).events()) == 2
        else:  # the one person has spent all of the budget, by whichever id
            with pytest.raises(AssertionError, match="would bring what is spent over all runs to epsilon"):
                calibrated(command, tmp_path, model, paths, *given_words)
    words += ["--state", tmp_path / "many"]
    with pytest.raises(AssertionError, match=r"is above 0\.1 over its 10001 declared units"):
        calibrated(command, tmp_path, model, paths, *words, "--sites", declared(tmp_path, 10_001))


def test_all_that_spends_a_sites_budget_is_told_the_same_of_it():
    config = (ROOT / "conf" / "modules.config").read_text()
    terms = {"epsilon", "delta", "accountant", "privacy_unit", "sites_per_patient", "same_person"}
    for process in ("TRAIN_SITE", "CALIBRATE_SCORES"):
        (block,) = re.findall(rf"withName: '{process}' {{\n\s+ext\.args.*?\n    }}\n", config, re.DOTALL)
        assert terms <= {
            name for name, other in re.findall(r"--(\w+) \${params\.(\w+)}", block) if name == other
        }
        assert terms <= {option.name for option in command_of(process.lower()).params}


def test_a_plan_leaves_room_for_what_the_calibration_will_cost(tmp_path, command):
    words = f"--sites {declared(tmp_path)} --state {tmp_path}/state --outdir {tmp_path}/out --epsilon 8"
    words += " --delta 1e-5 --rounds 2 --local_steps 3 --sampling_rate 0.5 --clip_norm 1 --learning_rate 1"
    words += " --max_variants_per_patient 256 --accountant pld --sites_per_patient 2 --calibration_epsilon 1"
    command("plan_run", *words.split())
    plan = read_plan(tmp_path / "out" / "plan.json")
    to_come = replace(ASKED, accountant="pld", sites_per_patient=2).event
    assert 0.99 * 8 <= epsilon_pld([*plan.events(), to_come], 1e-5) <= 8
