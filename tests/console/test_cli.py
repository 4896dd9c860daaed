"""Tests of cordon.cli, and of the sums in cordon.ledger.spending that it prints."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cordon import cli
from cordon.federation.aggregator.judge import Auditor
from cordon.federation.messages import Reply, ReplyStatus
from cordon.federation.plan import Plan, Site
from cordon.ledger.log import ChainedLog
from cordon.ledger.site import SiteLedger
from cordon.model.initial_weights import initial_parameters
from cordon.privacy.accountants import epsilon_pld, epsilon_rdp
from cordon.privacy.events import Event
from cordon.privacy.grouping import Grouping
from cordon.privacy.guarantee import ADJACENCY

ROOT = Path(__file__).resolve().parents[2]
PATIENTS = Grouping("patient", "mlp", 256, 40)
EVENT, OTHER = Event(2.0, 0.1, 10), Event(3.0, 0.2, 5)


def cordon(*words):
    return CliRunner().invoke(cli.main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site's ledger: run a sent both rounds, run b asked round 1 twice and crashed in round 2."""
    path = tmp_path_factory.mktemp("site") / "north.sqlite"
    held = SiteLedger(path, epsilon=4.0, delta=1e-5)
    for number in (1, 2):
        held.reserve("a", number, EVENT, PATIENTS, accountant="rdp")
        held.mark_sent("a", number)
    held.reserve("b", 1, EVENT, PATIENTS, accountant="rdp")
    held.reserve("b", 1, OTHER, PATIENTS, accountant="rdp")
    held.mark_sent("b", 1)
    held.reserve("b", 2, OTHER, PATIENTS, accountant="rdp")
    return path


@pytest.fixture(scope="module")
def aggregator(tmp_path_factory):
    """An aggregator's ledger of two sites: north trained twice, south said nothing and then trained."""
    log = ChainedLog(tmp_path_factory.mktemp("aggregator") / "ledger.sqlite")
    start = initial_parameters("logistic", 3)
    plan = Plan(
        run="run-1", model="logistic", unit="patient", epsilon=8.0, delta=1e-5, rounds=2, local_steps=10,
        sampling_rate=0.1, noise_multiplier=2.0, clip_norm=0.05, learning_rate=2.0,
        max_variants_per_patient=256,
    )  # fmt: skip
    judge = Auditor(plan, log, expected=start)
    north, south = (Site(name, 40, 1.0, f"key of {name}") for name in ("north", "south"))
    for number in (1, 2):
        update = {name: np.full_like(value, 0.2 + number / 100) for name, value in start.items()}
        reply = Reply(ReplyStatus.TRAINED, "run-1", number, EVENT, update)
        judge.judge(number, {north: (reply, ""), south: (reply if number == 2 else None, "")})
    return log.path


SPENT = [EVENT, EVENT, EVENT, OTHER, OTHER]


def test_show_composes_by_both_accountants_round_by_round(site):
    shown = json.loads(cordon("ledger", "show", site, "--json").stdout)
    assert shown["rows"] == 9
    (account,) = shown["accounts"]
    assert [(item["run"], item["round"], item["state"]) for item in account["rounds"]] == [
        ("a", 1, "sent"), ("a", 2, "sent"), ("b", 1, "reserved"), ("b", 1, "sent"), ("b", 2, "reserved"),
    ]  # fmt: skip
    for count, item in enumerate(account["rounds"], start=1):
        assert item["epsilon_rdp"] == epsilon_rdp(SPENT[:count], 1e-5)
        assert item["epsilon_pld"] == epsilon_pld(SPENT[:count], 1e-5)
        assert [Event(**event) for event in item["events"]] == [SPENT[count - 1]]
    assert account["epsilon_rdp"] == epsilon_rdp(SPENT, 1e-5)
    assert account["epsilon_pld"] == epsilon_pld(SPENT, 1e-5)
    assert account["budget"] == 4.0
    assert account["left_by_rdp"] == 4.0 - epsilon_rdp(SPENT, 1e-5)


def test_the_rounds_that_are_left_are_those_that_the_ledger_grants(site, tmp_path):
    (account,) = json.loads(cordon("ledger", "show", site, "--json").stdout)["accounts"]
    left = account["further_rounds"]
    assert left > 0
    assert epsilon_rdp([*SPENT, *[OTHER] * left], 1e-5) <= 4.0
    assert epsilon_rdp([*SPENT, *[OTHER] * (left + 1)], 1e-5) > 4.0
    for budget, expected in (("0.5", 0), ("1e9", 10_000)):
        shown = json.loads(cordon("ledger", "show", site, "--json", "--epsilon", budget).stdout)
        assert shown["accounts"][0]["further_rounds"] == expected
        assert shown["accounts"][0]["left_by_rdp"] >= 0.0


def objects(value):
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(inner)


def test_beside_every_epsilon_stand_unit_delta_mechanism_and_adjacency(site, aggregator):
    for path in (site, aggregator):
        shown = json.loads(cordon("ledger", "show", path, "--json").stdout)
        stated = [found for found in objects(shown) if "epsilon_rdp" in found]
        assert len(stated) >= 6
        for found in stated:
            assert (found["unit"], found["delta"], found["adjacency"]) == ("patient", 1e-5, ADJACENCY)
            assert found["mechanism"] == (
                "Poisson-sampled Gaussian" if found["epsilon_rdp"] else "no mechanism"
            )
        for line in cordon("ledger", "show", path).stdout.splitlines():
            if re.search(r"[Ee]psilon", line) and "epsilon RDP" not in line and "not recorded" not in line:
                assert "unit: one patient; delta 1e-05; Poisson-sampled Gaussian; adjacency:" in line


def test_the_table_has_a_line_a_round_and_what_is_left(site):
    lines = cordon("ledger", "show", site).stdout.splitlines()
    head, *rows = lines[3:9]
    assert re.split(r"  +", head.strip()) == list(cli.SPENT_COLUMNS)
    cells = [re.split(r"  +", row.strip()) for row in rows]
    assert cells[0][:7] == ["a", "1", "sent", "Poisson-sampled Gaussian", "2", "0.1", "10"]
    for row, count in zip(cells, range(1, 6), strict=True):
        assert epsilon_rdp(SPENT[:count], 1e-5) <= float(row[7]) <= epsilon_rdp(SPENT[:count], 1e-5) * 1.01
        assert epsilon_pld(SPENT[:count], 1e-5) <= float(row[8]) <= epsilon_pld(SPENT[:count], 1e-5) * 1.01
    assert [line.split(":")[0] for line in lines[9:]] == ["spent", "spent", "at several sites", "left by RDP"]
    left = float(lines[-1].split()[3])
    assert 0.99 * (4.0 - epsilon_rdp(SPENT, 1e-5)) <= left <= 4.0 - epsilon_rdp(SPENT, 1e-5)


def test_an_aggregators_ledger_is_shown_by_identity(aggregator):
    north, south = json.loads(cordon("ledger", "show", aggregator, "--json").stdout)["accounts"]
    assert re.fullmatch(r"north \(key [0-9a-f]{12}\)", north["holder"])
    assert [item["state"] for item in north["rounds"]] == ["accepted", "accepted"]
    assert north["epsilon_rdp"] == epsilon_rdp([EVENT] * 2, 1e-5)
    assert [(item["state"], item["epsilon_rdp"]) for item in south["rounds"]] == [
        ("missing", 0.0), ("accepted", epsilon_rdp([EVENT], 1e-5)),
    ]  # fmt: skip
    assert north["budget"] == 8.0
    assert north["left_by_rdp"] == 8.0 - epsilon_rdp([EVENT] * 2, 1e-5)
    assert north["further_rounds"] > 0
    shown = cordon("ledger", "show", aggregator).stdout
    assert shown.count("of the budget of epsilon 8 (unit: one patient; delta 1e-05") == 2
    with_another = cordon("ledger", "show", aggregator, "--epsilon", "9").stdout
    assert with_another.count("of the budget of epsilon 9 (unit: one patient; delta 1e-05") == 2


def test_the_same_events_are_more_epsilon_at_a_smaller_delta(site):
    (account,) = json.loads(cordon("ledger", "show", site, "--json", "--delta", "1e-8").stdout)["accounts"]
    assert account["epsilon_rdp"] == epsilon_rdp(SPENT, 1e-8)
    assert {item["delta"] for item in account["rounds"]} == {1e-8}


def test_a_cost_beyond_what_pld_can_bear_is_shown_by_rdp_alone(tmp_path):
    SiteLedger(tmp_path / "a.sqlite", epsilon=1e6, delta=1e-5).reserve(
        "a", 1, Event(0.1, 1.0, 100), Grouping("variant", "mlp", 1, 256), accountant="rdp"
    )
    lines = cordon("ledger", "show", tmp_path / "a.sqlite").stdout.splitlines()
    assert lines[4].endswith(" -")
    assert [line.split(":")[0] for line in lines[5:]] == ["spent", "at several sites", "left by RDP"]


def test_a_new_ledger_has_spent_nothing(tmp_path):
    SiteLedger(tmp_path / "a.sqlite", epsilon=8, delta=1e-5)
    assert json.loads(cordon("ledger", "show", tmp_path / "a.sqlite", "--json").stdout)["accounts"] == []
    assert cordon("ledger", "show", tmp_path / "a.sqlite").exit_code == 0


def test_rows_of_an_unknown_kind_are_not_left_out_in_silence(tmp_path):
    ChainedLog(tmp_path / "a.sqlite").append({"kind": "gift", "epsilon": 1})
    run = cordon("ledger", "show", tmp_path / "a.sqlite")
    assert run.exit_code == 2
    assert "row 1 is of kind 'gift'" in run.stderr


def test_verify_prints_what_it_found_and_what_it_cannot_show(site, tmp_path):
    run = cordon("ledger", "verify", site)
    log = ChainedLog(site)
    assert run.exit_code == 0
    assert run.stdout.splitlines() == [
        f"{site}: 9 rows, all verified",
        f"last hash: {log.head}",
        f"public key: {log.public_key}",
        "head record: no row is missing at the end, unless both were put back from an old copy",
    ]
    alone = shutil.copy(site, tmp_path)
    run = cordon("ledger", "verify", alone, "--key", log.public_key)
    assert run.exit_code == 0
    assert "rows may be missing at the end" in run.stdout
    assert json.loads(cordon("ledger", "verify", site, "--json").stdout) == {
        "ledger": str(site), "verified": True, "rows": 9, "head": log.head, "public_key": log.public_key,
        "head_record": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE rows SET line = replace(line, '2.0', '9.0') WHERE number = 4", "row 4: the row's signature"),
        ("DELETE FROM rows WHERE number = 3", "row 3: missing"),
        ("DELETE FROM rows WHERE number > 7", "row 8: missing"),
        ("INSERT INTO rows VALUES (10, '{}')", "row 10: the row's signature"),
    ],
)
def test_verify_names_the_first_bad_row_and_exits_2(site, tmp_path, statement, problem):
    path = shutil.copytree(site.parent, tmp_path / "copy") / site.name
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    run = cordon("ledger", "verify", path)
    assert run.exit_code == 2
    assert run.stderr.startswith(f"error: {path}, {problem}")
    found = json.loads(cordon("ledger", "verify", path, "--json").stdout)
    assert found["verified"] is False
    assert problem in found["problem"]
    for command in ("show", "export"):
        run = cordon("ledger", command, path)
        assert (run.exit_code, run.stdout) == (2, "")


def test_a_row_noted_earlier_shows_that_an_old_copy_was_put_back(site, tmp_path):
    folder = tmp_path / "ledger"
    shutil.copytree(site.parent, folder)
    held = SiteLedger(folder / site.name, epsilon=4.0, delta=1e-5)
    held.mark_sent("b", 2)
    noted = held._log.head
    assert cordon("ledger", "verify", folder / site.name, "--head", noted).exit_code == 0
    shutil.copytree(site.parent, folder, dirs_exist_ok=True)
    assert cordon("ledger", "verify", folder / site.name).exit_code == 0
    run = cordon("ledger", "verify", folder / site.name, "--head", noted)
    assert run.exit_code == 2
    assert "It is an old copy or another ledger" in run.stderr


@pytest.mark.parametrize("to_file", [True, False])
def test_an_export_verifies_again_with_the_public_key_alone(site, tmp_path, to_file):
    exported = tmp_path / "ledger.jsonl"
    run = cordon("ledger", "export", site, *(["--output", exported] if to_file else []))
    assert run.exit_code == 0
    if not to_file:
        exported.write_bytes(run.stdout_bytes)
    rows = [json.loads(line) for line in exported.read_text().splitlines()]
    assert [row["kind"] for row in rows] == [row["kind"] for row in ChainedLog(site)]
    assert [row["previous"] for row in rows] == ["0" * 64, *(row["hash"] for row in rows[:-1])]
    log = ChainedLog(site)
    found = cordon("ledger", "verify", exported, "--key", log.public_key, "--head", log.head)
    assert found.exit_code == 0, found.stderr
    assert found.stdout.startswith(f"{exported}: 9 rows, all verified")
    shown = cordon("ledger", "show", exported, "--key", log.public_key, "--json").stdout
    assert (
        json.loads(shown)["accounts"]
        == json.loads(cordon("ledger", "show", site, "--json").stdout)["accounts"]
    )


def test_a_changed_export_is_refused(site, tmp_path):
    exported = tmp_path / "ledger.jsonl"
    cordon("ledger", "export", site, "--output", exported)
    key = ChainedLog(site).public_key
    lines = exported.read_bytes().splitlines(keepends=True)
    for content, row in (
        (b"".join(lines).replace(b'"sent"', b'"tens"', 1), 3),
        (b"".join(lines[1:]), 1),
        (b"".join(lines[:4] + lines[5:]), 5),
        (b"".join(lines)[:-20], 9),
        (b"".join([*lines, b"\n"]), 10),
        (b"", 1),
    ):
        exported.write_bytes(content)
        run = cordon("ledger", "verify", exported, "--key", key)
        assert run.exit_code == 2
        assert f"ledger.jsonl, row {row}: " in run.stderr


def test_the_public_key_is_given_as_digits_or_as_a_file(site, tmp_path):
    log = ChainedLog(site)
    (tmp_path / "key.txt").write_text(log.public_key + "\n")
    openssl = ["openssl", "pkey", "-in", str(site.with_suffix(".key")), "-pubout"]
    if shutil.which("openssl"):
        (tmp_path / "key.pem").write_bytes(subprocess.run(openssl, capture_output=True, check=True).stdout)
    for key in (log.public_key, site.with_suffix(".key"), *tmp_path.iterdir()):
        assert cordon("ledger", "verify", site, "--key", key).exit_code == 0
    other = ChainedLog(tmp_path / "other.sqlite").public_key
    run = cordon("ledger", "verify", site, "--key", other)
    assert run.exit_code == 2
    assert "row 1: the row's signature does not verify" in run.stderr
    for wrong in ("abc", "00" * 31, tmp_path / "other.sqlite"):
        run = cordon("ledger", "verify", site, "--key", wrong)
        assert run.exit_code == 2
        assert "not an Ed25519 public key. Give its 64 hexadecimal digits" in run.stderr
    run = cordon("ledger", "verify", shutil.copy(site, tmp_path / "moved.sqlite"))
    assert run.exit_code == 2
    assert "Give --key" in run.stderr


def test_no_entry_point_shares_a_name_with_a_command_of_bin():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["cordon"] == "cordon.cli:main"
    for name, target in scripts.items():
        module, function = target.split(":")
        assert callable(getattr(import_module(module), function))
        assert not any(name in (file.name, file.stem) for file in (ROOT / "bin").iterdir())


def test_reading_a_ledger_starts_fast():
    code = "import sys, cordon.cli, cordon.ledger.log;"
    code += " print({'torch', 'flwr', 'dp_accounting'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
