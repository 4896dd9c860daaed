"""Tests of cordon.federation.aggregator.registry and of `cordon aggregator`."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from cordon.cli import main
from cordon.errors import UserError
from cordon.federation.aggregator.registry import Registry
from cordon.federation.plan import Site, identity
from cordon.ledger.log import ChainedLog

NORTH, SOUTH = (Site(name, 40, 1.0, f"key of {name}") for name in ("north", "south"))


@pytest.fixture
def log(tmp_path):
    return ChainedLog(tmp_path / "ledger.sqlite")


@pytest.fixture
def registry(log):
    made = Registry(log)
    for site in (SOUTH, NORTH):
        made.enrol(site)
    return made


def quarantined(log, site, run, decision="quarantined"):
    row = {"kind": "decision", "run": run, "round": 1, "identity": identity(site), "site": site.name}
    log.append(row | {"decision": decision, "reason": f"of {run}", "events": [], "unit": "patient"})


def test_whoever_is_enrolled_is_listed_by_name_with_the_last_declaration(registry, log):
    registry.enrol(replace(NORTH, declared_patients=50))
    registry.enrol(replace(NORTH, declared_patients=50))  # once more changes nothing
    members = Registry(ChainedLog(log.path)).members()
    assert [(m.site.name, m.site.declared_patients) for m in members] == [("north", 50), ("south", 40)]
    assert [m.identity for m in members] == [identity(NORTH), identity(SOUTH)]
    assert len(log.of_kind("enrolled")) == 3


def test_a_ban_holds_in_another_process_until_it_is_released_with_a_reason(registry, log):
    registry.ban("north", "sent noise")
    later = Registry(ChainedLog(log.path))
    assert later.banned(NORTH) == "sent noise"
    assert later.banned(SOUTH) == ""
    # Another spelling of the key, another name, enrolled again: the key is banned.
    assert later.banned(replace(NORTH, name="other", public_key="key  of\nnorth")) == "sent noise"
    later.enrol(replace(NORTH, weight=2.0))
    assert later.banned(NORTH) == "sent noise"
    with pytest.raises(UserError, match="need a reason"):
        later.release("north", "  ")
    later.release(identity(NORTH), "a bug, mended")
    assert later.banned(NORTH) == ""
    kinds = [(row["kind"], row["reason"], row["by"]) for row in log_rows(log) if row["kind"] != "enrolled"]
    assert kinds == [("banned", "sent noise", "operator"), ("released", "a bug, mended", "operator")]


def test_a_key_that_was_replaced_stays_listed_with_its_ban_and_is_nobody_elses(registry, log):
    registry.ban("north", "sent noise")
    registry.enrol(replace(NORTH, public_key="north's second key"))
    listed = [(m.site.name, m.identity, m.banned, m.current) for m in Registry(log).members()]
    assert listed == [
        ("north", identity(replace(NORTH, public_key="north's second key")), "", True),
        ("north", identity(NORTH), "sent noise", False),
        ("south", identity(SOUTH), "", True),
    ]
    with pytest.raises(UserError, match="the key of east is enrolled as north"):
        registry.enrol(replace(NORTH, name="east"))
    registry.release(identity(NORTH), "mended")
    assert registry.banned(NORTH) == ""
    registry.enrol(NORTH)  # the first key again
    assert [m.current for m in registry.members() if m.identity == identity(NORTH)] == [True]


def log_rows(log):
    return list(ChainedLog(log.path))


def test_offences_in_so_many_runs_are_a_ban_and_a_release_forgives_them(registry, log):
    for number in (1, 2):
        quarantined(log, NORTH, f"run-{number}")
        quarantined(log, NORTH, f"run-{number}")  # the same run is one offence
        assert not registry.sentence(NORTH, ban_after=3)
    quarantined(log, NORTH, "run-3", decision="missing")
    assert not registry.sentence(NORTH, ban_after=3)
    quarantined(log, NORTH, "run-4")
    assert registry.sentence(NORTH, ban_after=3)
    assert registry.banned(NORTH) == "quarantined in 3 runs, last: of run-4"
    assert registry.sentence(NORTH, ban_after=3)
    assert len(log.of_kind("banned")) == 1
    assert not registry.sentence(SOUTH, ban_after=1)
    registry.release("north", "talked to them")
    assert [m.offences for m in registry.members()] == [0, 0]
    assert not registry.sentence(NORTH, ban_after=3)
    quarantined(log, NORTH, "run-5")
    assert registry.sentence(NORTH, ban_after=1)


def test_what_cannot_be_is_refused_with_the_remedy(registry):
    with pytest.raises(UserError, match="the key of east is enrolled as north"):
        registry.enrol(replace(NORTH, name="east"))
    with pytest.raises(UserError, match="no site 'east' is enrolled; north, south is"):
        registry.ban("east", "x")
    with pytest.raises(UserError, match="north is not banned\\."):
        registry.release("north", "x")
    registry.ban("north", "x")
    with pytest.raises(UserError, match="north is banned already"):
        registry.ban("north", "x")


def keys(path, key):
    """A key pair as ssh-keygen leaves it."""
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    path.with_suffix(".pub").write_bytes(public + b" someone@somewhere\n")


def cordon(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_an_operator_enrols_lists_bans_and_releases_by_command(tmp_path):
    state, key = tmp_path / "state", tmp_path / "north"
    keys(key, ec.generate_private_key(ec.SECP384R1()))
    enrol = ("aggregator", "enrol", "--state", state, "--site", "north", "--declared_patients", 40, "--key")
    made = cordon(*enrol, f"{key}.pub")
    assert (made.exit_code, made.output) == (0, "north is enrolled with 40 declared patients and weight 1\n")
    assert cordon("aggregator", "list", "--state", state).output.endswith("weight 1  0 offences\n")
    row = json.loads(cordon("aggregator", "list", "--state", state, "--json").output)["sites"][0]
    assert (row["site"], row["declared_patients"], row["banned"], row["offences"]) == ("north", 40, "", 0)
    assert cordon("aggregator", "ban", "north", "--state", state, "--reason", "left").exit_code == 0
    assert "banned: left" in cordon("aggregator", "list", "--state", state).output
    assert cordon("aggregator", "release", "north", "--state", state, "--reason", "back").exit_code == 0
    assert cordon("ledger", "verify", state / "ledger.sqlite").exit_code == 0
    assert cordon("ledger", "show", state / "ledger.sqlite", "--epsilon", 8, "--delta", 1e-5).exit_code == 0
    private = cordon(*enrol, key)
    assert private.exit_code == 2
    assert "a private key never leaves the site" in private.stderr


def test_a_key_of_another_kind_is_refused(tmp_path):
    key = tmp_path / "north"
    keys(key, ed25519.Ed25519PrivateKey.generate())
    made = cordon("aggregator", "enrol", "--state", tmp_path / "s", "--site", "north",
                  "--declared_patients", 4, "--key", f"{key}.pub")  # fmt: skip
    assert made.exit_code == 2
    assert "not an ECDSA key on P-384" in made.stderr
