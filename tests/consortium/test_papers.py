"""Study, request and kit: what is in them, who signed them, and what is refused."""

from __future__ import annotations

import base64
import datetime
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cordon.attestation.emulator import Emulator
from cordon.consortium.kit import read_kit, unpack
from cordon.consortium.operator import Operator
from cordon.consortium.request import make_request, make_request_again, read_request
from cordon.consortium.signed import read_paper, write_paper
from cordon.consortium.study import read_study
from cordon.errors import UserError
from cordon.federation.credentials import private_identity, write_new_key
from cordon.federation.plan import Plan

TERMS = """
name = "heart"
purpose = "Score rare variants of heart disease."
sites = ["north", "south", "west"]
data_use = ["DUO:0000042", "DUO:0000019"]
expires = 2031-12-31
model_receivers = "the sites"
unit = "patient"
lifetime_epsilon = 8.0
run_epsilon = 4.0
delta = 1e-5
"""


def plan_of(operator: Operator, **changes: object) -> Plan:
    study = operator.study
    settings: dict[str, object] = {
        "model": "logistic", "unit": study.unit, "epsilon": study.run_epsilon, "delta": study.delta,
        "rounds": 2, "local_steps": 2, "sampling_rate": 0.5, "clip_norm": 0.05, "learning_rate": 2.0,
        "max_variants_per_patient": 64, "lifetime_epsilon": study.lifetime_epsilon, "study": study.hash,
        "expires": study.expires,
    }  # fmt: skip
    return Plan.calibrated(**(settings | changes))


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """A consortium with a study, where north and south are enrolled and a plan is made."""
    made = Operator.begin(tmp_path / "heart", "heart")
    (made.folder / "study.toml").write_text(TERMS)
    for name in ("north", "south"):
        path = make_request(tmp_path / name, name, 40, 1.5, f"Dr {name}")
        made.approve(read_request(path), private_identity(tmp_path / name / "site.key"))
    made.write_plan(plan_of(made))
    return made


@pytest.fixture
def policy(tmp_path: Path) -> str:
    return Emulator.at(tmp_path / "emulator").write_policy(tmp_path / "policy.toml").read_text()


def changed(path: Path, **content: object) -> Path:
    """The paper at ``path`` with other content under the same signature."""
    paper = json.loads(path.read_text())
    paper["content"] |= content
    path.write_text(json.dumps(paper))
    return path


def test_a_new_study_says_what_is_to_be_filled_in(tmp_path):
    made = Operator.begin(tmp_path / "lungs", "lungs")
    with pytest.raises(UserError) as told:
        read_study(made.folder / "study.toml")
    for term in ("purpose", "sites", "model_receivers"):
        assert term in str(told.value)
    assert "expires" not in str(told.value)


@pytest.mark.parametrize(
    ("line", "other", "said"),
    [
        ("expires = 2031-12-31", 'expires = "soon"', "expires is no day"),
        ("delta = 1e-5", "delta = 0.5", "0 < delta <="),
        ("run_epsilon = 4.0", "run_epsilon = 9.0", "run_epsilon <= lifetime_epsilon"),
        ("run_epsilon = 4.0", "run_epsilon = true", "must be numbers"),
        ('"DUO:0000019"', '"public"', "data_use must be a list of terms like DUO:0000042"),
        ('"heart"', '"../../heart"', "name must be of letters"),
        ("expires = 2031-12-31", 'expires = "20311231"', "expires is no day"),
        ('"west"]', '"../west"]', "sites must be a list of names"),
        ('"west"]', '"north"]', "sites must be a list of names"),
        ('unit = "patient"', 'unit = "hospital"', "unit must be"),
        ('unit = "patient"', 'units = "patient"', "unit is missing"),
        ("delta = 1e-5", "delta = 1e-5\nnote = 1", "'note' is no term of a study"),
        ('"the sites"', '"a\\u001b[31mb"', "model_receivers says nothing, or is no line"),
        ("delta = 1e-5", "delta ==", "not TOML"),
    ],
)
def test_a_term_that_is_wrong_is_named(tmp_path, line, other, said):
    (tmp_path / "study.toml").write_text(TERMS.replace(line, other))
    with pytest.raises(UserError) as told:
        read_study(tmp_path / "study.toml")
    assert said in str(told.value)
    assert "study.toml" in str(told.value)


def test_another_term_is_another_study(tmp_path):
    (tmp_path / "a.toml").write_text(TERMS)
    (tmp_path / "b.toml").write_text(TERMS.replace('"the sites"', '"everybody"'))
    (tmp_path / "c.toml").write_text(f"# spaced out\n{TERMS}".replace(" = ", "   =  "))
    one, two, three = (read_study(tmp_path / f"{name}.toml").hash for name in "abc")
    assert one == three != two


def test_a_request_is_what_the_site_signed_with_a_key_that_is_its_owners_alone(tmp_path):
    path = make_request(tmp_path / "north", "north", 40, 1.5, "Dr N")
    key = tmp_path / "north" / "site.key"
    assert key.stat().st_mode & 0o777 == 0o600
    asked = read_request(path)
    assert (asked.site.name, asked.site.declared_patients, asked.site.weight) == ("north", 40, 1.5)
    assert asked.paper.fingerprint == private_identity(key)
    assert "PRIVATE" not in path.read_text()
    with pytest.raises(UserError, match="there is a key already"):
        make_request(tmp_path / "north", "north", 41, 1.5, "Dr N")
    assert private_identity(key) == asked.paper.fingerprint


@pytest.mark.parametrize(
    "content", [{"declared_patients": 1}, {"site": "south"}, {"weight": 100.0}, {"contact": "Dr M"}]
)
def test_a_request_that_was_changed_is_refused(tmp_path, content):
    path = changed(make_request(tmp_path, "north", 40, 1.0, "Dr N"), **content)
    with pytest.raises(UserError, match=r"north\.request: its signature does not hold"):
        read_request(path)


def test_a_request_under_anothers_key_is_not_the_site(operator, tmp_path):
    """Somebody in between signs in the site's name: the fingerprint that its owner tells is another."""
    forged = make_request(tmp_path / "between", "west", 40, 1.0, "Dr W")
    make_request(tmp_path / "west", "west", 40, 1.0, "Dr W")
    with pytest.raises(UserError, match="not by the one of the fingerprint given"):
        operator.approve(read_request(forged), private_identity(tmp_path / "west" / "site.key"))
    assert [site.name for site in operator.sites()] == ["north", "south"]


def test_who_is_not_in_the_study_is_not_taken_in(operator, tmp_path):
    path = make_request(tmp_path / "east", "east", 40, 1.0, "Dr E")
    with pytest.raises(UserError, match=r"east is not among the study's sites \(north, south, west\)"):
        operator.approve(read_request(path), private_identity(tmp_path / "east" / "site.key"))


def test_a_site_joins_with_what_the_operator_signed(operator, tmp_path, policy):
    path = operator.write_kit("aggregator.example.org:9092", "")
    kit = read_kit(path, operator.fingerprint)
    assert kit.plan == operator.plan()
    own = unpack(kit, tmp_path / "north")
    assert (own.name, own.declared_patients, own.weight) == ("north", 40, 1.5)
    folder = tmp_path / "north"
    assert json.loads((folder / "plan.json").read_text()) == operator.plan().to_dict()
    assert (folder / "sites.csv").read_text() == "site,declared_patients,weight\nnorth,40,1.5\nsouth,40,1.5\n"
    assert (folder / "ca.crt").read_text() == (operator.folder / "aggregator" / "ca.crt").read_text()
    import yaml

    given = yaml.safe_load((folder / "run.yml").read_text())
    assert given == {
        "aggregator": "aggregator.example.org:9092", "aggregator_ca": f"{folder}/ca.crt",
        "plan": f"{folder}/plan.json", "sites": f"{folder}/sites.csv", "site_key": f"{folder}/site.key",
        "state_dir": f"{folder}/state", "epsilon": 8.0, "run_epsilon": 4.0, "delta": 1e-5,
        "privacy_unit": "patient", "accountant": "rdp",
    }  # fmt: skip
    # With a policy, the certificate of an earlier kit is gone.
    unpack(
        read_kit(operator.write_kit("aggregator.example.org:9092", policy), operator.fingerprint),
        folder,
    )
    assert (folder / "policy.toml").read_text() == policy
    assert not (folder / "ca.crt").exists()
    assert "aggregator_policy" in (folder / "run.yml").read_text()


def test_every_parameter_of_a_run_is_one_of_the_pipelines(operator, tmp_path):
    from conftest import ROOT

    unpack(read_kit(operator.write_kit("a.example.org:9092", ""), operator.fingerprint), tmp_path / "north")
    schema = json.loads((ROOT / "nextflow_schema.json").read_text())
    known = {name for group in schema["$defs"].values() for name in group["properties"]}
    lines = (tmp_path / "north" / "run.yml").read_text().splitlines()
    assert {line.split(":")[0] for line in lines if not line.startswith("#")} <= known


def test_a_kit_of_another_operator_is_refused(operator, tmp_path):
    other = Operator.begin(tmp_path / "other", "heart")
    (other.folder / "study.toml").write_text(TERMS)
    for name in ("north", "south"):
        asked = read_request(tmp_path / name / f"{name}.request")
        other.approve(asked, asked.paper.fingerprint)
    other.write_plan(plan_of(other, learning_rate=1.0))
    path = other.write_kit("evil.example.org:9092", "")
    with pytest.raises(UserError, match="not by the one of the fingerprint given"):
        read_kit(path, operator.fingerprint)


@pytest.mark.parametrize("content", [{"address": "evil.example.org:1"}, {"policy": ""}, {"roster": []}])
def test_a_kit_that_was_changed_is_refused(operator, policy, content):
    path = changed(operator.write_kit("a.example.org:9092", policy), **content)
    with pytest.raises(UserError, match="its signature does not hold"):
        read_kit(path, operator.fingerprint)


def test_a_kit_of_another_version_names_both(operator, monkeypatch):
    monkeypatch.setattr("cordon.consortium.signed.__version__", "9.9.9")
    path = operator.write_kit("a.example.org:9092", "")
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"made with Cordon 9\.9\.9, and this is "):
        read_kit(path, operator.fingerprint)


def test_a_site_that_is_not_in_the_kit_is_told_who_is(operator, tmp_path):
    kit = read_kit(operator.write_kit("a.example.org:9092", ""), operator.fingerprint)
    make_request(tmp_path / "west", "west", 4, 1.0, "Dr W")
    with pytest.raises(UserError, match="the kit is for north, south, and this key"):
        unpack(kit, tmp_path / "west")
    assert not (tmp_path / "west" / "plan.json").exists()
    with pytest.raises(UserError, match="no key"):
        unpack(kit, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"study": ""}, "the plan's study is 'not set'"),
        ({"expires": "2039-01-01"}, "the plan's expires is '2039-01-01' and the study's '2031-12-31'"),
        ({"epsilon": 6.0}, "the plan may cost 6 and the study's run_epsilon is 4"),
        ({"delta": 1e-6}, "the plan's delta is 1e-06 and the study's 1e-05"),
        ({"unit": "variant"}, "the plan's unit is 'variant'"),
    ],
)
def test_a_plan_on_other_terms_than_the_studys_goes_into_no_kit(operator, changes, said):
    operator.write_plan(plan_of(operator, **changes))
    with pytest.raises(UserError) as told:
        operator.write_kit("a.example.org:9092", "")
    assert said in str(told.value)


def test_terms_that_changed_after_the_plan_are_told(operator):
    (operator.folder / "study.toml").write_text(TERMS.replace("the sites", "the public"))
    with pytest.raises(UserError, match="the plan's study is"):
        operator.write_kit("a.example.org:9092", "")


def test_after_its_last_day_nobody_joins_or_trains(operator, tmp_path, monkeypatch):
    path = operator.write_kit("a.example.org:9092", "")
    kit = read_kit(path, operator.fingerprint)
    kit.plan.check_expiry()
    monkeypatch.setattr(time, "strftime", lambda form: "2032-01-01")
    with pytest.raises(UserError, match="was over on 2031-12-31, and today is 2032-01-01"):
        unpack(kit, tmp_path / "north")
    monkeypatch.setattr(time, "strftime", lambda form: "2031-12-31")
    kit.plan.check_expiry()
    replace(kit.plan, expires="").check_expiry()


NO_KEY = {"cordon": "kit", "version": 1, "content": {}, "public_key": "x", "signature": "y"}


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", "[" * 100_000, '{"cordon": "kit"}', "\x00\xff", json.dumps(NO_KEY)],
    ids=["empty", "object", "list", "deep", "fields missing", "bytes", "no key"],
)
def test_what_is_no_paper_is_told_by_its_file(tmp_path, text):
    (tmp_path / "a.kit").write_text(text)
    with pytest.raises(UserError, match=r"a\.kit: "):
        read_paper("kit", tmp_path / "a.kit")


def test_papers_are_not_taken_for_one_another(operator, tmp_path):
    with pytest.raises(UserError, match="not a kit, but a request"):
        read_paper("kit", tmp_path / "north" / "north.request")
    paper = json.loads((tmp_path / "north" / "north.request").read_text()) | {"cordon": "kit"}
    (tmp_path / "a.kit").write_text(json.dumps(paper))
    with pytest.raises(UserError, match="its signature does not hold"):
        read_paper("kit", tmp_path / "a.kit")


def test_a_signature_of_another_kind_of_key_is_refused(tmp_path):
    path = make_request(tmp_path, "north", 40, 1.0, "Dr N")
    paper = json.loads(path.read_text())
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    small = ec.generate_private_key(ec.SECP256R1()).public_key()
    paper["public_key"] = small.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    paper["signature"] = base64.b64encode(b"x" * 70).decode()
    path.write_text(json.dumps(paper))
    with pytest.raises(UserError, match="not an ECDSA key on P-384"):
        read_request(path)


def test_an_operators_key_is_not_written_over(tmp_path):
    made = Operator.begin(tmp_path / "heart", "heart")
    with pytest.raises(UserError, match="a consortium is there already"):
        Operator.begin(tmp_path / "heart", "heart")
    write_new_key(tmp_path / "other.key", ec.generate_private_key(ec.SECP384R1()))
    assert made.fingerprint != private_identity(tmp_path / "other.key")


def test_a_request_is_written_anew_for_the_key_that_is_there(tmp_path):
    first = make_request(tmp_path, "north", 40, 1.0, "Dr N")
    first.unlink()
    again = read_request(make_request_again(tmp_path, "north", 41, 2.0, "Dr N"))
    assert again.paper.fingerprint == private_identity(tmp_path / "site.key")
    assert (again.site.declared_patients, again.site.weight) == (41, 2.0)
    with pytest.raises(UserError, match="no key"):
        make_request_again(tmp_path / "nowhere", "north", 41, 2.0, "Dr N")


@pytest.mark.parametrize(
    ("patients", "weight", "contact"),
    [(10**400, 1.0, "x"), (40, 1e-300, "x"), (40, 1.0, " "), (40, 1.0, "a\x1b")],
)
def test_a_declaration_out_of_all_reason_is_refused_at_both_ends(tmp_path, patients, weight, contact):
    with pytest.raises(UserError):
        make_request(tmp_path, "north", patients, weight, contact)
    assert not (tmp_path / "site.key").exists()
    path = make_request(tmp_path, "north", 40, 1.0, "Dr N")
    content = {"site": "north", "declared_patients": patients, "weight": weight, "contact": contact}
    write_paper("request", content, tmp_path / "site.key", path)
    with pytest.raises(UserError, match=r"north\.request: not a request"):
        read_request(path)


def test_a_signature_that_is_no_text_of_base_64_is_refused(tmp_path):
    path = make_request(tmp_path, "north", 40, 1.0, "Dr N")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"signature": "\u00e9" * 8}))
    with pytest.raises(UserError, match="its signature does not hold"):
        read_request(path)


def test_a_key_or_a_declaration_is_replaced_only_where_that_is_said(operator, tmp_path):
    own = private_identity(tmp_path / "north" / "site.key")
    other = read_request(make_request(tmp_path / "mallory", "north", 4000, 1.0, "Dr N"))
    (told,) = operator.standing(other)
    assert told.startswith(f"it is enrolled with the key {own[:16]} (40 patients, weight 1.5), whose place")
    with pytest.raises(UserError, match=r"whose place this one takes.*Give --replace"):
        operator.approve(other, other.paper.fingerprint)
    more = read_request(make_request_again(tmp_path / "north", "north", 400, 1.5, "Dr N"))
    assert operator.standing(more) == ["it is enrolled with 40 patients, weight 1.5"]
    with pytest.raises(UserError, match="Give --replace"):
        operator.approve(more, own)
    assert [site.declared_patients for site in operator.sites()] == [40, 40]
    operator.approve(more, own, replacing=True)
    assert [site.declared_patients for site in operator.sites()] == [400, 40]
    operator.approve(more, own)  # as it is already


def test_a_banned_site_does_not_come_back_under_a_new_key(operator, tmp_path):
    from cordon.federation.aggregator.registry import Registry
    from cordon.ledger.log import ChainedLog

    Registry(ChainedLog(operator.ledger)).ban("south", "no noise")
    anew = read_request(make_request(tmp_path / "south3", "south", 40, 1.0, "Dr S"))
    with pytest.raises(UserError, match=r"is banned: no noise\. Release it first"):
        operator.approve(anew, anew.paper.fingerprint, replacing=True)


@pytest.mark.parametrize("policy", ["hello = [", "[sev_snp]\nunheard_of = 1\n"])
def test_what_is_no_policy_is_neither_signed_nor_joined(operator, policy):
    with pytest.raises(UserError, match=r"policy\.toml"):
        operator.write_kit("a.example.org:9092", policy)


def test_a_plan_that_was_made_for_other_sites_goes_into_no_kit(operator, tmp_path):
    asked = read_request(make_request(tmp_path / "west", "west", 4, 1.0, "Dr W"))
    operator.approve(asked, asked.paper.fingerprint)
    with pytest.raises(UserError, match="was made for other sites, keys or declarations"):
        operator.write_kit("a.example.org:9092", "")


def test_after_its_last_day_nothing_is_signed(operator, monkeypatch):
    class Later(datetime.date):
        @classmethod
        def today(cls):
            return cls(2032, 1, 1)

    monkeypatch.setattr("cordon.consortium.study.datetime.date", Later)
    with pytest.raises(UserError, match="was over on 2031-12-31"):
        operator.write_kit("a.example.org:9092", "")


def test_a_certificate_that_ends_soon_is_made_anew(operator, monkeypatch):
    path = operator.write_kit("a.example.org:9092", "")
    first = read_kit(path, operator.fingerprint).certificate
    operator.write_kit("a.example.org:9092", "")
    assert read_kit(path, operator.fingerprint).certificate == first
    monkeypatch.setattr("cordon.consortium.operator.SOON", 900)
    operator.write_kit("a.example.org:9092", "")
    assert read_kit(path, operator.fingerprint).certificate != first


def test_one_aggregator_runs_at_a_time(operator):
    with operator.alone(), pytest.raises(UserError, match="is running already"), operator.alone():
        pass
    with operator.alone():
        pass


def test_a_private_key_is_its_owners_alone_even_where_a_file_was_open_to_all(tmp_path):
    path = tmp_path / "a.key"
    path.write_text("old")
    path.chmod(0o644)
    write_new_key(path, ec.generate_private_key(ec.SECP384R1()))
    assert path.stat().st_mode & 0o777 == 0o600
