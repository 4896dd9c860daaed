"""What a model says of its privacy against the ledger, and the certificate that goes with it."""

import json
import math
from dataclasses import replace
from decimal import ROUND_CEILING

import pytest
from click.testing import CliRunner

from certificate_lab import PLAN, SITES, Lab
from cordon.auditing import certificate
from cordon.auditing.certificate import Subject
from cordon.auditing.checks import Check
from cordon.auditing.claims import check_claims
from cordon.auditing.reviewer_questions import answers
from cordon.cli import main
from cordon.errors import NotReleased, UserError
from cordon.ledger.cohorts import Beside
from cordon.ledger.hash_chain import read_private_key
from cordon.ledger.log import ChainedLog, Tip, key_path, read_log
from cordon.ledger.provenance import Verdict
from cordon.ledger.site import SiteLedger
from cordon.ledger.spending import by_cohort
from cordon.privacy.accountants import epsilon_rdp
from cordon.privacy.guarantee import three_digits
from cordon.privacy.tradeoff import percent, risk


@pytest.fixture
def lab(tmp_path) -> Lab:
    return Lab(tmp_path)


class TestClaims:
    def test_what_the_ledger_bears_out_passes_with_its_figures(self, lab):
        found = lab.claims(model_hash=lab.model.hash)
        assert found.passed, found.reason
        assert {item["holder"] for item in found.figures["recomputed"]} == {"a" * 64, "b" * 64}
        for item in found.figures["recomputed"]:
            assert item["epsilon_pld"] <= item["epsilon_rdp"] <= 4.0
            assert {"unit", "delta", "mechanism", "adjacency"} <= set(item)

    def test_an_epsilon_stated_at_half_is_refused(self, lab):
        found = lab.claims(lab.saying(epsilon=lab.model.privacy["epsilon"] / 2))
        assert not found.passed
        assert "the model states epsilon" in found.reason

    @pytest.mark.parametrize("epsilon", [None, "8", 0, -1.0, float("nan"), True])
    def test_an_epsilon_that_is_none_is_refused(self, lab, epsilon):
        assert not lab.claims(lab.saying(epsilon=epsilon)).passed

    @pytest.mark.parametrize(
        "changes",
        [{"unit": "variant"}, {"delta": 1e-6}, {"mechanism": "none"}, {"adjacency": "replace"}, {"run": "x"}],
    )
    def test_every_word_beside_epsilon_must_be_the_plans(self, lab, changes):
        assert next(iter(changes)) in lab.claims(lab.saying(**changes)).reason

    @pytest.mark.parametrize(
        "changes",
        [{"clip_norm": 0.06}, {"learning_rate": 1.0}, {"epsilon": 9.0}, {"rounds": 9}, {"averaged_rounds": 2},
         {"max_variants_per_patient": 8}, {"model": "mlp"}, {"start": "0" * 64}, {"per_layer": True}],
        ids=str,
    )  # fmt: skip
    def test_a_record_whose_plan_differs_in_any_field_is_refused(self, lab, changes):
        found = lab.claims(plan=replace(PLAN, **changes))
        assert not found.passed
        assert "the record's plan is not the one of the run" in found.reason

    def test_the_ledger_knows_the_plan_that_was_sent(self, lab):
        other = replace(PLAN, clip_norm=0.06)
        row = {"kind": "asked", "run": PLAN.run, "round": 1, "identity": "a" * 64, "site": "x",
               "event": PLAN.event.to_dict(), "plan": other.digest}  # fmt: skip
        ChainedLog(lab.path).append(row)
        for plan in (PLAN, other):
            said = lab.saying(plan=plan.digest)
            assert lab.claims(said, plan).passed == (plan is other)

    def test_spending_in_other_runs_counts(self, lab):
        lab.decide(ChainedLog(lab.path), "a" * 64, 1, run="an earlier one")
        assert "come to epsilon" in lab.claims().reason

    def test_an_update_that_was_refused_was_released_all_the_same(self, lab):
        lab.decide(ChainedLog(lab.path), "a" * 64, 4, decision="quarantined")
        assert not lab.claims().passed

    def test_a_site_that_never_was_in_the_model_does_not_count(self, lab):
        log = ChainedLog(lab.path)
        for number in range(1, 9):
            lab.decide(log, "c" * 64, number, decision="quarantined")
        assert lab.claims().passed

    def test_a_site_of_which_nothing_arrived_counts(self, lab):
        log = ChainedLog(lab.path)
        for number in (1, 2, 3):
            lab.decide(log, "c" * 64, number, decision="missing")
        found = lab.claims()
        assert found.passed
        assert {item["holder"][0] for item in found.figures["recomputed"]} == {"a", "b", "c"}
        lab.decide(log, "c" * 64, 1, run="an earlier one", decision="missing")
        assert "come to epsilon" in lab.claims().reason

    def test_what_was_asked_counts_where_the_aggregator_ended_before_it_judged(self, lab):
        row = {"kind": "asked", "run": "a later one", "round": 1, "identity": "a" * 64, "site": "x",
               "event": PLAN.event.to_dict()}  # fmt: skip
        ChainedLog(lab.path).append(row)
        assert "come to epsilon" in lab.claims().reason

    @pytest.mark.parametrize(
        ("changes", "passes"),
        [({}, True), ({"unit": "variant"}, False), ({"model": "mlp"}, False), ({"most_rows": 1}, False)],
        ids=str,
    )
    def test_a_site_that_grouped_its_rows_otherwise_than_the_plan_is_named(
        self, lab, tmp_path, changes, passes
    ):
        path = tmp_path / "site.sqlite"
        held = SiteLedger(path, epsilon=50.0, delta=1e-5)
        held.follow(PLAN.run, Tip(**lab.model.privacy["ledger"]))
        held.reserve(PLAN.run, 1, PLAN.event, replace(PLAN.grouping(20), **changes), accountant="rdp")
        held.mark_sent(PLAN.run, 1)
        own, _ = read_log(path, read_private_key(key_path(path)).public_key())
        found = check_claims(lab.model, PLAN, own)
        assert (found.passed, "grouped otherwise than the plan says" in found.reason) == (passes, not passes)

    def test_events_that_are_not_the_plans_are_named(self, lab):
        other = replace(PLAN.event, noise_multiplier=PLAN.event.noise_multiplier * 2)
        lab.decide(ChainedLog(lab.path), "a" * 64, 4, event=other)
        assert "has events in the run that are not its plan's" in lab.claims().reason

    def test_another_model_another_ledger_and_another_run_are_refused(self, lab, tmp_path):
        assert "the run's record tells of" in lab.claims(model_hash="0" * 64).reason
        (tmp_path / "b").mkdir()
        other = Lab(tmp_path / "b")
        assert "is not in this ledger" in other.claims(lab.model).reason
        assert "carries no tip" in lab.claims(lab.saying(ledger=None)).reason
        assert "holds nothing of run other" in lab.claims(plan=replace(PLAN, run="other")).reason


class TestSite:
    """A certificate that a site signs: nothing in it follows from who of its patients took part."""

    RUN, EARLIER = PLAN.run, "an earlier one"

    def ledger(self, folder, name, **cohorts):
        """A site's ledger of runs (``cohorts``) of PLAN's cost, each by some of its patients."""
        held = SiteLedger(folder / f"{name}.sqlite", epsilon=50.0, delta=1e-5)
        for run, patients in cohorts.items():
            called = {"run": self.RUN}.get(run, self.EARLIER)
            for number in (1, 2, 3):
                grouping, after = PLAN.grouping(20), 3 - number
                held.reserve(called, number, PLAN.event, grouping, patients, after=after, accountant="rdp")
                held.mark_sent(called, number)
        return held

    def content(self, lab, folder, name="n"):
        """What the site would certify of the lab's model, the check behind it, and the ledger."""
        path = folder / f"{name}.sqlite"
        SiteLedger(path, epsilon=50.0, delta=1e-5).follow(self.RUN, Tip(**lab.model.privacy["ledger"]))
        chain = read_log(path, read_private_key(key_path(path)).public_key())[0]
        model = lab.saying(epsilon=epsilon_rdp([PLAN.event] * 6, 1e-5))
        found = check_claims(model, PLAN, chain, beside=Beside(path).chains())
        subject = Subject(model, PLAN, [], Tip("", 0, ""), [], {})
        return certificate.certificate(subject, [found], found.figures) | {"issued": ""}, found, chain

    def test_one_patient_more_in_a_run_changes_no_word_of_it(self, lab, tmp_path):
        """Who is in both runs spent twice as much, and that somebody is stays in the site's own figures."""
        told = []
        for name, second in (("apart", ["b1", "b2"]), ("one-more", ["b1", "b2", "a0"])):
            folder = tmp_path / name
            self.ledger(folder, "n", earlier=["a0", "a1"], run=second)
            content, found, chain = self.content(lab, folder)
            assert found.passed, found.reason
            told.append((json.dumps(content), [cohort.rounds for cohort in by_cohort(chain, [])]))
        (public, apart), (same, one_more) = told
        assert public == same
        assert (sorted(apart), sorted(one_more)) == ([3, 3], [3, 3, 6])

    def test_it_states_no_less_than_whoever_spent_most_spent(self, lab, tmp_path):
        for name, second in (("apart", ["b1"]), ("the-same", ["a1"])):
            held = self.ledger(tmp_path / name, "n", earlier=["a1"], run=second)
            content, *_ = self.content(lab, tmp_path / name)
            said = content["guarantee"]
            assert said["epsilon_rdp"] == epsilon_rdp([PLAN.event] * 6, 1e-5) >= held.spent()
            assert said["run_epsilon_rdp"] == epsilon_rdp([PLAN.event] * 3, 1e-5)
            assert [risk["epsilon_rdp"] for risk in content["risks"]] == [
                said["run_epsilon_rdp"], said["epsilon_rdp"],
            ]  # fmt: skip
            questions = {item["question"].split(":")[0]: item["answer"] for item in content["questions"]}
            assert "More than this run is counted" in questions["Hyperparameters"]
            assert "so that no patient spent more by them" in questions["Privacy parameters"]

    def test_what_a_site_spent_under_another_name_is_counted(self, lab, tmp_path):
        """The model tells what this name's key was charged, which is less than its patients spent."""
        held = self.ledger(tmp_path, "n", earlier=["a0", "a1"])
        self.ledger(tmp_path, "m", run=["a0", "a1"])
        content, found, _ = self.content(lab, tmp_path, "m")
        assert found.passed, found.reason
        said = content["guarantee"]
        assert said["epsilon_rdp"] == epsilon_rdp([PLAN.event] * 6, 1e-5)
        assert SiteLedger(tmp_path / "m.sqlite", epsilon=50.0, delta=1e-5).spent() == said["epsilon_rdp"]
        assert held.spent() == said["epsilon_rdp"]
        assert (said["ledgers"], said["lifetime_scope"]) == (2, "all runs in 2 ledgers")
        assert [risk["scope"] for risk in content["risks"]] == ["this run", "all runs in 2 ledgers"]
        assert "those of the 2 site ledgers of this folder" in content["questions"][0]["answer"]
        assert "; with what no model tells of, epsilon " in found.reason

    def test_a_ledger_alone_says_that_other_names_are_not_counted(self, lab, tmp_path):
        self.ledger(tmp_path, "m", run=["a0", "a1"])
        content, *_ = self.content(lab, tmp_path, "m")
        told = {item["question"].split(":")[0]: item["answer"] for item in content["questions"]}
        alone = (
            "under this name, holds no other run and no calibration; other names of the site are not counted."
        )
        assert alone in told["Hyperparameters"]
        assert "under this name; other names of the site are not counted" in told["Privacy parameters"]
        assert [risk["scope"] for risk in content["risks"]] == ["this run"]

    def test_a_round_that_did_not_leave_is_not_counted_and_one_reserved_anew_once(self, lab, tmp_path):
        held = self.ledger(tmp_path, "n", run=["a0"])
        held.reserve("later", 1, PLAN.event, PLAN.grouping(20), ["a0"], accountant="rdp")
        content, *_ = self.content(lab, tmp_path)
        assert content["guarantee"]["epsilon_rdp"] == epsilon_rdp([PLAN.event] * 3, 1e-5)
        held.reserve("later", 1, PLAN.event, PLAN.grouping(30), ["a0"], accountant="rdp")
        held.mark_sent("later", 1)
        content, *_ = self.content(lab, tmp_path)
        assert content["guarantee"]["epsilon_rdp"] == epsilon_rdp([PLAN.event] * 4, 1e-5)


class TestCertificate:
    def test_it_holds_for_its_model_by_the_key_that_the_model_carries(self, lab, tmp_path):
        content = certificate.verify(lab.issue(tmp_path), lab.model)
        assert content["guarantee"]["epsilon"] == lab.model.privacy["epsilon"]
        assert content["guarantee"]["epsilon_pld"] < content["guarantee"]["epsilon"]
        assert {"unit", "delta", "mechanism", "adjacency"} <= set(content["guarantee"])
        assert [site["declared_patients"] for site in content["sites"]] == [20, 30]
        assert all("{" not in item["answer"] for item in content["questions"])
        assert content["software"]["cordon"]

    def test_it_says_what_anybody_can_decide_and_for_groups_with_all_that_stands_beside(self, lab, tmp_path):
        content = json.loads(lab.issue(tmp_path).read_text())
        (found,) = content["risks"]
        expected = risk([PLAN.event] * 3, unit="patient", delta=1e-5)
        assert found == {"scope": "this run", **json.loads(json.dumps(expected.to_dict()))}
        strength, groups = (
            next(item["answer"] for item in content["questions"] if item["question"].startswith(start))
            for start in ("Privacy parameters", "Groups")
        )
        stated = "(unit: one {}; delta 1e-05; Poisson-sampled Gaussian; adjacency: add or remove one unit)"
        assert f"In this run, epsilon 4 {stated.format('patient')}" in strength
        assert f"is right at most {percent(expected.guess)} of the time" in strength
        assert f"finds at most {percent(expected.tpr)} of those who did" in strength
        assert f"mu {three_digits(expected.mu, ROUND_CEILING)}." in strength
        for size, word in ((2, "two"), (3, "three")):
            told = three_digits(expected.groups[size], ROUND_CEILING)
            assert f"epsilon {told} {stated.format(f'group of {word} patients')}" in groups
        assert "99.9" not in strength
        model = tmp_path / "model.safetensors"
        lab.model.save(model)
        words = ["certificate", "verify", str(tmp_path / "certificate.json"), "--model", str(model)]
        shown = CliRunner().invoke(main, words).output
        assert f"decisions: In this run, epsilon 4 {stated.format('patient')}" in shown
        assert f"groups: {groups.partition(': ')[2]}" in shown
        assert expected.guess < 0.7 < 1 / (1 + math.exp(-4.0))

    def test_run_and_lifetime_stand_side_by_side_where_the_ledger_tells_of_other_runs(self, lab):
        log = ChainedLog(lab.path)
        for number in (1, 2):
            lab.decide(log, "b" * 64, number, run="an earlier one")
        in_run, in_all = lab.claims().figures["risks"]
        assert (in_run["scope"], in_all["scope"]) == ("this run", "all runs in the ledger")
        assert in_run["epsilon_rdp"] == epsilon_rdp([PLAN.event] * 3, 1e-5)
        assert in_all["epsilon_rdp"] == epsilon_rdp([PLAN.event] * 5, 1e-5)
        for name in ("mu", "guess", "tpr"):
            assert in_run[name] < in_all[name]
        guarantee = {"epsilon": 6.0, **lab.claims().figures}
        told = {
            item["question"]: item["answer"] for item in answers(PLAN, guarantee, SITES, [in_run, in_all])
        }
        strength = next(answer for question, answer in told.items() if question.startswith("Privacy"))
        assert strength.index("In this run, epsilon") < strength.index("In all runs in the ledger, epsilon")
        assert any(
            "More than this run is counted, and above stands what" in answer for answer in told.values()
        )

    def test_it_answers_what_nist_asks_beside_the_guarantee_from_what_the_run_knows(self, lab, tmp_path):
        told = {
            item["question"].split(":")[0]: item["answer"]
            for item in json.loads(lab.issue(tmp_path).read_text())["questions"]
        }
        assert "calibration" in told["Coverage"]
        assert "scored VCFs" in told["Coverage"]
        assert "logistic by sgd at learning rate 2" in told["Hyperparameters"]
        assert "charges no site behind this model for another run." in told["Hyperparameters"]
        # South declares 30 patients.
        assert "Delta 1e-05" in told["Delta"]
        assert "30 units, so that at worst 0.0003 of them" in told["Delta"]
        assert "no attestation evidence" in told["Attestation"]
        assert "void where" in told["Validity and revocation"]
        assert len(told) == 16

    def test_no_byte_of_its_content_can_be_changed(self, lab, tmp_path):
        path = lab.issue(tmp_path)
        original = json.loads(path.read_text())
        for place in ("issued", "guarantee", "plan", "sites", "checks", "ledger", "software", "trust"):
            changed = json.loads(path.read_text())
            changed[place] = "other" if place != "guarantee" else original[place] | {"delta": 1e-9}
            (tmp_path / "changed.json").write_text(json.dumps(changed))
            with pytest.raises(NotReleased, match="signature"):
                certificate.verify(tmp_path / "changed.json", lab.model)
        (tmp_path / "spaced.json").write_text(json.dumps(original))
        assert certificate.verify(tmp_path / "spaced.json", lab.model)

    def test_it_certifies_no_other_model_and_no_other_statement(self, lab, tmp_path):
        path = lab.issue(tmp_path)
        moved = {name: value + 1 for name, value in lab.model.parameters.items()}
        with pytest.raises(NotReleased, match="certifies the model"):
            certificate.verify(path, replace(lab.model, parameters=moved))
        with pytest.raises(NotReleased, match="certifies epsilon"):
            certificate.verify(path, lab.saying(epsilon=1.0))

    def test_another_key_certifies_only_whoever_trusts_it(self, lab, tmp_path):
        (tmp_path / "b").mkdir()
        other = Lab(tmp_path / "b")
        path = lab.issue(tmp_path, key=other.key)
        with pytest.raises(NotReleased, match="signature"):
            certificate.verify(path, lab.model)
        assert certificate.verify(path, lab.model, key=str(key_path(other.path)))

    def test_a_failed_check_issues_nothing(self, lab, tmp_path):
        failed = Check("step bound", "?", Verdict.FAILED, "a lower bound of 9 is above 4")
        with pytest.raises(NotReleased, match=r"step bound: a lower bound of 9"):
            lab.issue(tmp_path, [failed])
        assert not (tmp_path / "certificate.json").exists()

    def test_figures_of_patients_rows_stay_out_of_it(self, lab, tmp_path):
        secret = Check("membership", "?", Verdict.PASSED, "AUC 0.512345", {"auc": 0.512345}, private=True)
        path = lab.issue(tmp_path, [secret])
        assert "0.512345" not in path.read_text()
        assert {"name": "membership", "verdict": Verdict.PASSED}.items() <= certificate.read(path)["checks"][
            1
        ].items()

    @pytest.mark.parametrize("text", ["", "{}", '{"kind": "other"}', "[]", "\xff"])
    def test_what_is_no_certificate_is_said_to_be_none(self, lab, tmp_path, text):
        (tmp_path / "c.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError, match="no certificate"):
            certificate.verify(tmp_path / "c.json", lab.model)


class TestCommand:
    def verify(self, *words):
        run = CliRunner().invoke(main, ["certificate", "verify", *map(str, words)])
        assert run.exception is None or isinstance(run.exception, SystemExit), run.exception
        return run

    @pytest.fixture
    def held(self, lab, tmp_path):
        lab.model.save(tmp_path / "model.safetensors")
        return lab.issue(tmp_path, [Check("step bound", "Is there noise?", Verdict.PASSED, "there is")])

    def test_it_says_that_a_certificate_holds_and_for_what(self, held, tmp_path):
        run = self.verify(held, "--model", tmp_path / "model.safetensors")
        assert run.exit_code == 0, run.output
        assert "holds for model" in run.stdout
        assert (
            "(unit: one patient; delta 1e-05; Poisson-sampled Gaussian; adjacency: add or remove"
            in run.stdout
        )
        assert "step bound: passed; there is" in run.stdout

    def test_it_ends_with_8_where_it_does_not_hold(self, held, tmp_path):
        held.write_text(held.read_text().replace("2026", "2027"))
        run = self.verify(held, "--model", tmp_path / "model.safetensors", "--json")
        assert run.exit_code == 8
        assert json.loads(run.stdout)["holds"] is False
        assert "signature is not by" in run.stderr

    def test_json_is_the_certificate(self, held, tmp_path):
        run = self.verify(held, "--model", tmp_path / "model.safetensors", "--json")
        told, kept = json.loads(run.stdout)["content"], json.loads(held.read_text())
        assert told == {name: kept[name] for name in kept if name not in ("hash", "signature")}
