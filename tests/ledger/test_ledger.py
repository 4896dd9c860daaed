"""Tests of cordon.ledger.log, and of the chain and the database under it."""

import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cordon import files
from cordon.errors import BudgetExceeded, FederationError, UserError
from cordon.ledger import database, hash_chain
from cordon.ledger.log import ChainedLog, Tip, read_log
from cordon.ledger.site import SiteLedger
from cordon.ledger.spending import accounts
from cordon.privacy.accountants import epsilon_rdp
from cordon.privacy.events import Event
from cordon.privacy.grouping import Grouping

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
PATIENTS = Grouping("patient", "mlp", 256, 40)
JOURNALS = pytest.mark.parametrize("journal", ["wal", "delete"])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A log of four rows: its file, with key and head record beside it, and its lines."""
    path = tmp_path_factory.mktemp("log") / "log.sqlite"
    log = ChainedLog(path)
    for number in range(4):
        log.append({"kind": "decision", "number": number, "epsilon": 0.1 * number})
    return path, lines(path)


def sql(path, *statements):
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            result = connection.execute(*(statement if isinstance(statement, tuple) else (statement,)))
        return result.fetchall()


def lines(path):
    return [line for (line,) in sql(path, "SELECT line FROM rows ORDER BY number")]


def reopened(written, *statements, content=None):
    """The rows of a copy that was changed by SQL, or whose file is ``content``."""
    with TemporaryDirectory() as folder:
        path = shutil.copytree(written[0].parent, Path(folder) / "log") / "log.sqlite"
        if statements:
            sql(path, *statements)
        if content is not None:
            path.write_bytes(content)
        return list(ChainedLog(path))


def replaced(*rows):
    return [
        "DELETE FROM rows",
        *(("INSERT INTO rows VALUES (?, ?)", row) for row in enumerate(rows, start=1)),
    ]


def use_journal(monkeypatch, journal):
    monkeypatch.setattr(database, "file_system", lambda path: "ext4" if journal == "wal" else "nfs4")


@settings(max_examples=25, deadline=None)
@given(st.lists(ROWS, max_size=5))
def test_a_log_reads_back_what_was_appended(rows):
    with TemporaryDirectory() as folder:
        log = ChainedLog(Path(folder) / "log.sqlite")
        for row in rows:
            log.append(row)
        again = ChainedLog(log.path)
        assert list(again) == rows == list(log)
        assert again.head == log.head
        assert again.public_key == log.public_key
        read, has_head = read_log(log.path, hash_chain.public_key(log.public_key))
        assert (read.rows, read.head, has_head) == (rows, log.head, True)


def test_between_two_rows_the_file_is_whole_by_itself(written):
    assert sorted(file.name for file in written[0].parent.iterdir()) == ["log.head", "log.key", "log.sqlite"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_changed_byte_of_a_row_is_refused_and_the_row_named(written, data):
    number = data.draw(st.integers(1, 4))
    line = bytearray(written[1][number - 1].encode())
    place = data.draw(st.integers(0, len(line) - 1))
    line[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[place]))
    with pytest.raises(UserError, match=rf"log\.sqlite, row {number}: "):
        reopened(
            written,
            ("UPDATE rows SET line = CAST(? AS TEXT) WHERE number = ?", (bytes(line), number)),
        )


def test_a_schema_that_is_no_text_any_more_is_refused(written):
    path, rows = written
    content = path.read_bytes()
    begins = content.index(b"CREATE TABLE")
    refused = 0
    for place in range(begins, begins + 40):
        changed = content[:place] + b"\x80" + content[place + 1 :]
        try:
            found = reopened(written, content=changed)
        except UserError as error:
            refused += "restore it from a backup" in str(error)
        else:
            assert [json.dumps(row, sort_keys=True) for row in found] == rows
    assert refused > 5


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_byte_of_the_file_changes_the_rows_are_those_written_or_refused(written, data):
    content = bytearray(written[0].read_bytes())
    place = data.draw(st.integers(0, 250) | st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255))
    try:
        rows = reopened(written, content=bytes(content))
    except UserError:
        return
    assert [row["number"] for row in rows] == [0, 1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_file_cut_anywhere_is_refused(written, data):
    content = written[0].read_bytes()
    with pytest.raises(UserError, match=r"log\.sqlite"):
        reopened(written, content=content[: data.draw(st.integers(0, len(content) - 1))])


@pytest.mark.parametrize("spelling", ["upper case", "spaces", "escapes", "carriage return"])
def test_another_spelling_of_the_same_row_is_refused(written, spelling):
    line, *rest = written[1]
    signature = json.loads(line)["signature"]
    other = {
        "upper case": line.replace(signature, signature.upper()),
        "spaces": line.replace(": ", ":  ", 1),
        "escapes": line.replace("kind", "\\u006bind", 1),
        "carriage return": line + "\r",
    }[spelling]
    assert other != line
    with pytest.raises(UserError, match="row 1"):
        reopened(written, *replaced(other, *rest))


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(4)), st.integers(0, 4))
def test_removed_or_swapped_rows_are_refused_at_the_end_too(written, order, count):
    kept = replaced(*(written[1][number] for number in order[:count]))
    if order[:count] == [0, 1, 2, 3]:
        assert len(reopened(written, *kept)) == 4
    elif order[:count] == list(range(count)):
        with pytest.raises(UserError, match=rf"row {count + 1}: missing. .* has seen 4 rows"):
            reopened(written, *kept)
    else:
        with pytest.raises(UserError, match=r"row \d: the row does not follow"):
            reopened(written, *kept)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM rows WHERE number = 2", "row 2: missing, and a row 3 is there"),
        ("UPDATE rows SET number = 9 WHERE number = 4", "row 4: missing, and a row 9 is there"),
        (
            "INSERT INTO rows SELECT 9, line FROM rows WHERE number = 4",
            "row 5: missing, and a row 9 is there",
        ),
        ("INSERT INTO rows SELECT 5, line FROM rows WHERE number = 4", "row 5: the row does not follow"),
        ("INSERT INTO rows SELECT 0, line FROM rows WHERE number = 4", "row 1: a row 0 is there"),
        ("INSERT INTO rows SELECT -5, line FROM rows WHERE number = 4", "row 1: a row -5 is there"),
        ("CREATE TABLE more (line TEXT)", "something else than a ledger"),
        ("CREATE VIEW spent AS SELECT 0", "something else than a ledger"),
        ("CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows; END", "something else than a ledger"),
        ("ALTER TABLE rows RENAME TO row", "something else than a ledger"),
        ("DROP TABLE rows", "something else than a ledger"),
    ],
)
def test_rows_beside_the_chain_and_gaps_in_it_are_refused(written, statement, message):
    with pytest.raises(UserError, match=message):
        reopened(written, statement)


def test_a_row_signed_with_another_key_is_refused(written, tmp_path):
    other = ChainedLog(tmp_path / "other.sqlite")
    forged = hash_chain.Chain("", other._chain.key)
    forged._hashes = [json.loads(written[1][-1])["hash"]]
    line = forged.signed({"kind": "decision", "number": 4}, other._key)
    with pytest.raises(UserError, match="row 5: the row's signature does not verify"):
        reopened(written, *replaced(*written[1], line.decode()))


@pytest.mark.parametrize(
    "line", ["[]", "null", "7", "{}", '{"signature": 1, "hash": 2}', b"\xff\xfe", "", 7, 0.5, "[" * 9999]
)
def test_a_line_that_is_no_row_is_refused(written, line):
    with pytest.raises(UserError, match="row 5"):
        reopened(written, *replaced(*written[1], line))


def test_a_head_record_is_no_row_and_a_row_no_head_record(written):
    record = written[0].with_suffix(".head").read_text()
    with pytest.raises(UserError, match="row 5: the row does not follow"):
        reopened(written, *replaced(*written[1], record))
    rows = hash_chain.Chain("log", ChainedLog(written[0])._chain.key)
    for row in written[1]:
        rows.add(row.encode())
    rows.check_head(record.encode())
    named_like_one = rows.signed({"head": rows.head, "rows": 4}, ChainedLog(written[0])._key).decode()
    for other in (written[1][-1], named_like_one, "{}", "", record.replace('"rows": 4', '"rows": 3')):
        with pytest.raises(UserError, match="head record does not verify"):
            rows.check_head(other.encode())


def test_rows_that_are_others_than_the_head_record_saw_are_refused(written, tmp_path):
    """The same key signed two histories: as when an old copy was put back and written on."""
    path = shutil.copytree(written[0].parent, tmp_path / "log") / "log.sqlite"
    record = path.with_suffix(".head").read_bytes()
    sql(path, "DELETE FROM rows WHERE number > 2")
    older = hash_chain.Chain("", ChainedLog(written[0])._chain.key)
    for row in written[1][:2]:
        older.add(row.encode())
    path.with_suffix(".head").write_bytes(older.head_record(ChainedLog(written[0])._key))
    log = ChainedLog(path)
    log.append({"another": 3})
    log.append({"another": 4})
    log.append({"another": 5})
    path.with_suffix(".head").write_bytes(record)
    with pytest.raises(UserError, match="row 4: not the row that its head record has seen"):
        ChainedLog(path)


def test_a_ledger_its_key_or_its_head_record_that_is_gone_is_not_made_anew(written, tmp_path):
    for suffix, message in ((".sqlite", "missing, but its log.key"), (".head", "head record .* is missing"),
                            (".key", "the key of log.sqlite is missing")):  # fmt: skip
        path = shutil.copytree(written[0].parent, tmp_path / suffix) / "log.sqlite"
        path.with_suffix(suffix).unlink()
        with pytest.raises(UserError, match=message):
            ChainedLog(path)
        assert not path.with_suffix(suffix).exists()


def test_the_key_is_its_owners_and_must_be_one(tmp_path):
    log = ChainedLog(tmp_path / "log.sqlite")
    key = tmp_path / "log.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    log.append({})
    key.write_text("no key")
    with pytest.raises(UserError, match=r"log\.key: not a private key"):
        ChainedLog(log.path)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"kind": "decision"}\n' * 100)
    before = path.read_bytes()
    with pytest.raises(UserError, match="It is no ledger, or a damaged one"):
        ChainedLog(path)
    assert path.read_bytes() == before
    sql(tmp_path / "other.sqlite", "CREATE TABLE other (line TEXT)")
    with pytest.raises(UserError, match="something else than a ledger"):
        ChainedLog(tmp_path / "other.sqlite")
    assert not (tmp_path / "other.key").exists()


@pytest.mark.parametrize("step", [1, 2])
def test_a_crash_while_the_log_is_made_hinders_nothing(tmp_path, monkeypatch, step):
    """Killed before or after the head record of no rows, and so before the key."""
    calls = []

    def dies(path, content):
        calls.append(path)
        if len(calls) == step:
            raise KeyboardInterrupt
        files.write_durably(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("cordon.ledger.log.write_durably", dies)
        with pytest.raises(KeyboardInterrupt):
            ChainedLog(tmp_path / "log.sqlite")
    ChainedLog(tmp_path / "log.sqlite").append({"number": 1})
    assert list(ChainedLog(tmp_path / "log.sqlite")) == [{"number": 1}]


def test_a_crash_between_a_row_and_its_head_record_loses_neither(written, tmp_path, monkeypatch):
    path = shutil.copytree(written[0].parent, tmp_path / "log") / "log.sqlite"
    with monkeypatch.context() as patch:
        patch.setattr("cordon.ledger.log.write_durably", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ChainedLog(path).append({"number": 4})
    assert [row["number"] for row in ChainedLog(path)] == [0, 1, 2, 3, 4]
    assert b'"rows": 5' in path.with_suffix(".head").read_bytes()


WRITER = """
import sys
from pathlib import Path
from cordon.ledger import database, room
from cordon.ledger.site import SiteLedger
from cordon.privacy.events import Event
from cordon.privacy.grouping import Grouping

PATIENTS = Grouping("patient", "mlp", 256, 40)
database.file_system = lambda path: sys.argv[2]
room.epsilon_by = lambda accountant, events, delta: 0.0
held = SiteLedger(Path(sys.argv[1]), epsilon=1.0, delta=1e-5)
number = len(held.events())
print("ready", flush=True)
while True:
    number += 1
    held.reserve("a", number, Event(2.0, 0.1, 10), PATIENTS, accountant="rdp")
    print("reserved", number, flush=True)
    held.mark_sent("a", number)
    print("sent", number, flush=True)
"""


@JOURNALS
@pytest.mark.stress
def test_killed_at_any_moment_nothing_that_was_promised_is_lost(tmp_path, journal, monkeypatch):
    use_journal(monkeypatch, journal)
    path, source = tmp_path / "site.sqlite", random.Random(7)
    kind = "ext4" if journal == "wal" else "nfs4"
    promised, kills = set(), 10
    for _ in range(kills):
        command = [sys.executable, "-c", WRITER, str(path), kind]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            words = "".join(writer.stdout.readline() for _ in range(source.randint(1, 6)))
            time.sleep(source.uniform(0.0, 0.02))
            writer.kill()
            words += writer.stdout.read()
        *whole, _ = words.split("\n")
        assert whole[0] == "ready"
        promised |= {tuple(line.split()) for line in whole[1:]}
        held = ledger(tmp_path)
        rows = [(row["kind"], str(row["round"])) for row in held._log if row["kind"] != "budget"]
        assert promised <= set(rows)
        assert len(rows) == len(set(rows))
        assert {number for kind, number in rows if kind == "sent"} <= {
            number for kind, number in rows if kind == "reserved"
        }
        assert len(rows) <= len(promised) + kills
    assert len(promised) >= kills


@settings(max_examples=60, deadline=None)
@given(st.data())
@pytest.mark.stress
def test_a_log_cut_by_a_loss_of_power_is_a_beginning_or_refused(data):
    with TemporaryDirectory() as folder:
        log = ChainedLog(Path(folder) / "log.sqlite")
        log.append({"number": 0})
        with closing(sqlite3.connect(log.path)) as reader:  # who reads keeps the log from being folded in
            reader.execute("SELECT * FROM rows").fetchall()
            heads = []
            for number in range(1, 4):
                heads.append(log.path.with_suffix(".head").read_bytes())
                log.append({"number": number})
            copy = shutil.copytree(folder, Path(folder) / "copy") / "log.sqlite"
        copy.with_name("log.sqlite-shm").unlink()
        wal = copy.with_name("log.sqlite-wal")
        wal.write_bytes(wal.read_bytes()[: data.draw(st.integers(0, wal.stat().st_size - 1))])
        if not wal.stat().st_size:
            wal.unlink()
        with pytest.raises(UserError, match=r"row \d: missing. .* has seen 4 rows"):
            ChainedLog(copy)
        # With the head record that was on disk before the rows that are lost, it goes on.
        held = len(lines(copy))
        copy.with_suffix(".head").write_bytes(heads[max(held, 1) - 1])
        assert [row["number"] for row in ChainedLog(copy)] == list(range(held))


@JOURNALS
def test_a_full_disk_leaves_no_half_row(tmp_path, monkeypatch, journal):
    use_journal(monkeypatch, journal)
    log = ChainedLog(tmp_path / "log.sqlite")
    log.append({"number": 0})
    begin = database._begin

    def full(path):
        connection = begin(path)
        connection.execute("PRAGMA max_page_count=1")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(database, "_begin", full)
        with pytest.raises(UserError, match=r"disk is full\. Check the disk's space"):
            log.append({"number": 1, "long": "x" * 100_000})
    assert [row["number"] for row in log] == [0]
    log.append({"number": 2})
    assert [row["number"] for row in ChainedLog(log.path)] == [0, 2] == [row["number"] for row in log]


def test_a_row_decided_on_before_another_process_wrote_is_refused(tmp_path):
    first, second = (ChainedLog(tmp_path / "log.sqlite") for _ in range(2))
    first.append({"number": 1})
    with pytest.raises(UserError, match="another process wrote to this ledger"):
        second.append({"number": 2})
    assert list(second) == [{"number": 1}]
    second.append({"number": 3})
    assert list(ChainedLog(tmp_path / "log.sqlite")) == [{"number": 1}, {"number": 3}]


def test_rows_written_under_one_lock_are_all_there_or_none(tmp_path):
    log = ChainedLog(tmp_path / "log.sqlite")
    with log.locked():
        log.append({"number": 1})
        log.append({"number": 2})
    with suppress(ZeroDivisionError), log.locked():
        log.append({"number": 3})
        raise ZeroDivisionError
    log.append({"number": 4})
    assert [row["number"] for row in log] == [1, 2, 4] == [row["number"] for row in ChainedLog(log.path)]


@JOURNALS
def test_the_second_writer_waits_for_the_first(tmp_path, monkeypatch, journal):
    use_journal(monkeypatch, journal)
    log, other = (ChainedLog(tmp_path / "log.sqlite") for _ in range(2))
    order = []

    def second():
        with other.locked():
            order.append("second")

    with log.locked():
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(0.3)
        order.append("first")
        log.append({"number": 1})
    waiting.join(timeout=30)
    assert order == ["first", "second"]
    assert list(other) == [{"number": 1}]


def test_a_writer_that_waits_too_long_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "WAIT", 0.2)
    log = ChainedLog(tmp_path / "log.sqlite")
    with closing(sqlite3.connect(log.path)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match=r"Another process has held it for more than 0\.2 s"):
            log.append({"number": 1})
    log.append({"number": 2})
    assert list(log) == [{"number": 2}]


def test_where_the_write_ahead_log_cannot_work_the_rollback_journal_does(tmp_path, monkeypatch, caplog):
    log = ChainedLog(tmp_path / "log.sqlite")
    log.append({"number": 1})
    assert sql(log.path, "PRAGMA journal_mode") == [("wal",)]
    assert caplog.messages == []
    with database.transaction(log.path) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)  # FULL, and the folder too
    use_journal(monkeypatch, "delete")  # as after a move to a network file system
    moved = ChainedLog(log.path)
    assert "on a file system of type nfs4 SQLite's write-ahead log cannot be used" in caplog.text
    moved.append({"number": 2})
    assert sql(log.path, "PRAGMA journal_mode") == [("delete",)]
    assert len(list(ChainedLog(log.path))) == 2


def test_a_ledger_in_use_elsewhere_is_not_written_by_another_journal(tmp_path, monkeypatch):
    log = ChainedLog(tmp_path / "log.sqlite")
    monkeypatch.setattr(database, "WAIT", 0.2)
    with closing(sqlite3.connect(log.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM rows").fetchall()
        use_journal(monkeypatch, "delete")
        with pytest.raises(UserError, match="Another process has held it"):
            log.append({"number": 1})


def test_the_journal_is_changed_when_the_ledger_is_free(tmp_path, monkeypatch):
    log = ChainedLog(tmp_path / "log.sqlite")
    with closing(sqlite3.connect(log.path, check_same_thread=False)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM rows").fetchall()
        use_journal(monkeypatch, "delete")
        leaving = threading.Timer(0.5, reader.close)
        leaving.start()
        log.append({"number": 1})
        leaving.join()
    assert sql(log.path, "PRAGMA journal_mode") == [("delete",)]
    assert list(ChainedLog(log.path)) == [{"number": 1}]


def test_rows_that_go_while_the_log_is_open_are_missed(tmp_path):
    log = ChainedLog(tmp_path / "log.sqlite")
    for number in range(3):
        log.append({"number": number})
    sql(log.path, "DELETE FROM rows WHERE number = 2")
    with pytest.raises(UserError, match="3 rows were read before, and 2 are there"):
        log.append({"number": 3})


MAKER = """
import sys
from pathlib import Path
from cordon.ledger.log import ChainedLog

print(ChainedLog(Path(sys.argv[1])).public_key)
"""


def test_many_processes_make_one_ledger(tmp_path):
    command = [sys.executable, "-c", MAKER, str(tmp_path / "log.sqlite")]
    makers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({maker.communicate(timeout=60)[0] for maker in makers}) == 1
    assert [maker.returncode for maker in makers] == [0] * 4


def test_the_file_system_is_the_innermost_mounts(tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "40 22 0:40 / /home rw shared:2 - nfs4 server:/home rw\n"
        "41 40 0:41 / /home/my\\040data rw - xfs /dev/sdb rw\n"
        "42 22 0:42 / /scratch rw - ext4 /dev/sdc rw\n"
        "43 22 0:43 / /scratch rw - lustre mgs:/scratch rw\n"
    )
    monkeypatch.setattr(database, "MOUNTS", mounts)
    kinds = {place: database.file_system(Path(place)) for place in
             ("/", "/homes/a", "/home/a/b", "/home/my data/x", "/scratch/ledger.sqlite")}  # fmt: skip
    assert list(kinds.values()) == ["ext4", "ext4", "nfs4", "xfs", "lustre"]
    monkeypatch.setattr(database, "MOUNTS", tmp_path / "none")
    assert database.file_system(Path("/")) == ""


@JOURNALS
def test_a_ledger_on_a_medium_that_cannot_be_written_is_read(tmp_path, monkeypatch, journal):
    use_journal(monkeypatch, journal)
    with TemporaryDirectory() as folder:
        log = ChainedLog(Path(folder) / "log.sqlite")
        log.append({"number": 1})
        for file in Path(folder).iterdir():
            file.chmod(0o444)
        Path(folder).chmod(0o555)
        ids = os.getresuid()
        if os.geteuid() == 0:  # root may write anything
            os.setresuid(65534, 65534, 0)
        try:
            rows, has_head = read_log(log.path, log._chain.key)
        finally:
            os.setresuid(*ids)
            Path(folder).chmod(0o755)
        assert (rows.rows, has_head) == ([{"number": 1}], True)


def test_reading_leaves_no_file_behind_and_sees_what_a_killed_writer_committed(tmp_path):
    log = ChainedLog(tmp_path / "log.sqlite")
    with closing(sqlite3.connect(log.path)) as reader:
        reader.execute("SELECT * FROM rows").fetchall()
        log.append({"number": 1})
        copy = shutil.copytree(tmp_path, tmp_path / "copy") / "log.sqlite"
    assert copy.with_name("log.sqlite-wal").stat().st_size
    assert read_log(copy, log._chain.key)[0].rows == [{"number": 1}]
    assert sorted(file.name for file in copy.parent.iterdir()) == ["log.head", "log.key", "log.sqlite"]


def ledger(folder, *, epsilon=8.0, delta=1e-5):
    return SiteLedger(folder / "site.sqlite", epsilon=epsilon, delta=delta)


def test_a_reservation_is_on_disk_before_reserve_returns(tmp_path):
    ledger(tmp_path).reserve("a", 1, EVENT, PATIENTS, accountant="rdp")
    assert ledger(tmp_path).events() == [EVENT]
    assert ledger(tmp_path).spent() == epsilon_rdp([EVENT], 1e-5)


def test_after_a_crash_the_same_round_uses_its_reservation_again(tmp_path):
    ledger(tmp_path).reserve("a", 1, EVENT, PATIENTS, accountant="rdp")
    ledger(tmp_path).reserve("a", 1, EVENT, PATIENTS, accountant="rdp")
    assert ledger(tmp_path).events() == [EVENT]


def test_a_round_that_was_answered_is_never_answered_again(tmp_path):
    first = ledger(tmp_path)
    first.reserve("a", 1, EVENT, PATIENTS, accountant="rdp")
    first.mark_sent("a", 1)
    for again in (first, ledger(tmp_path)):
        assert again.sent("a", 1)
        with pytest.raises(UserError, match="round 1 of run a was answered before"):
            again.reserve("a", 1, EVENT, PATIENTS, accountant="rdp")
        with pytest.raises(UserError, match="round 1 of run a was answered before"):
            again.reserve("a", 1, Event(9.0, 0.1, 1), PATIENTS, accountant="rdp")
    assert ledger(tmp_path).events() == [EVENT]


def test_a_round_asked_again_at_another_cost_is_reserved_again(tmp_path):
    held = ledger(tmp_path)
    held.reserve("a", 1, EVENT, PATIENTS, accountant="rdp")
    held.reserve("a", 1, Event(4.0, 0.1, 10), PATIENTS, accountant="rdp")
    assert held.events() == [EVENT, Event(4.0, 0.1, 10)]


def test_a_round_beyond_the_budget_is_refused_and_nothing_is_recorded(tmp_path):
    one = epsilon_rdp([EVENT], 1e-5)
    held = ledger(tmp_path, epsilon=one)
    held.reserve("a", 1, EVENT, PATIENTS, accountant="rdp")  # exactly the budget is allowed
    before = list(held._log)
    with pytest.raises(
        BudgetExceeded,
        match=r"round 2 would bring what is spent over all runs to epsilon .* Nothing was spent",
    ) as refusal:
        held.reserve("a", 2, EVENT, PATIENTS, accountant="rdp")
    assert refusal.value.exit_code == 3
    stopped = {"kind": "stopped", "run": "a", "round": 2}
    assert list(held._log) == [*before, stopped] == list(ledger(tmp_path, epsilon=one)._log)
    # The run ended here, whatever the budget is later; another one may begin.
    with pytest.raises(BudgetExceeded, match="run a ended here at round 2, for which nobody had room"):
        ledger(tmp_path).reserve("a", 3, EVENT, PATIENTS, accountant="rdp")
    ledger(tmp_path).reserve("b", 1, EVENT, PATIENTS, accountant="rdp")
    assert ledger(tmp_path).events() == [EVENT] * 2


def test_a_reservation_is_used_again_only_within_the_budget_in_force(tmp_path):
    ledger(tmp_path).reserve("a", 1, EVENT, PATIENTS, accountant="rdp")
    with pytest.raises(BudgetExceeded, match=r"round 1 would bring .* more than the site's budget"):
        ledger(tmp_path, epsilon=0.99 * epsilon_rdp([EVENT], 1e-5)).reserve(
            "a", 1, EVENT, PATIENTS, accountant="rdp"
        )
    assert ledger(tmp_path).events() == [EVENT]


def test_spending_composes_over_runs(tmp_path):
    for run in "ab":
        held = ledger(tmp_path)
        held.reserve(run, 1, EVENT, PATIENTS, accountant="rdp")
        held.mark_sent(run, 1)
    assert ledger(tmp_path).spent() == epsilon_rdp([Event(2.0, 0.1, 20)], 1e-5)
    with pytest.raises(BudgetExceeded):
        ledger(tmp_path, epsilon=ledger(tmp_path).spent()).reserve("c", 1, EVENT, PATIENTS, accountant="rdp")


def test_the_same_spending_is_more_epsilon_at_a_smaller_delta(tmp_path):
    ledger(tmp_path).reserve("a", 1, EVENT, PATIENTS, accountant="rdp")
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
                held.reserve(run, number, event, PATIENTS, accountant="rdp")
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
    [(0.0, 1e-5), (-1.0, 1e-5), (float("nan"), 1e-5), (float("inf"), 1e-5), (1.0, 0.0), (1.0, float("nan")),
     (1.0, 0.11), (1.0, 0.5)],
)  # fmt: skip
def test_what_is_no_budget_is_refused(tmp_path, epsilon, delta):
    with pytest.raises(UserError, match="no budget"):
        ledger(tmp_path, epsilon=epsilon, delta=delta)


def test_nothing_is_reserved_by_an_accountant_that_nobody_named(tmp_path):
    with pytest.raises(TypeError, match="accountant"):
        ledger(tmp_path).reserve("a", 1, EVENT, PATIENTS)


def test_a_reservation_says_what_was_grouped_how_and_counts_anew_for_another_grouping(tmp_path):
    """The declared number of units, never that of the rows at hand; the grouping by its digest."""
    held = ledger(tmp_path, epsilon=50.0)
    held.reserve("a", 1, EVENT, PATIENTS, accountant="rdp")
    held.reserve("a", 1, EVENT, PATIENTS, accountant="rdp")
    others = [
        replace(PATIENTS, model="logistic"), replace(PATIENTS, most_rows=16), replace(PATIENTS, declared=41),
    ]  # fmt: skip
    for other in others:
        held.reserve("a", 1, EVENT, other, accountant="rdp")
    rows = ChainedLog(tmp_path / "site.sqlite").of_kind("reserved")
    assert [row["declared_units"] for row in rows] == [40, 40, 40, 41]
    assert [row["grouping"] for row in rows] == [one.digest for one in (PATIENTS, *others)]
    assert len({row["grouping"] for row in rows}) == 4
    assert PATIENTS.digest == "e3817a36d9b3afaa5800466e72bcb7eacb42bb5e3107cdd37e66764c16e067e4"
    assert held.spent() == epsilon_rdp([EVENT] * 4, 1e-5)


def test_spending_per_patient_and_per_variant_are_not_mixed(tmp_path):
    ledger(tmp_path).reserve("a", 1, EVENT, PATIENTS, accountant="rdp")
    with pytest.raises(UserError, match="per patient; this run counts per variant"):
        ledger(tmp_path).reserve("b", 1, EVENT, replace(PATIENTS, unit="variant"), accountant="rdp")
    assert len(ledger(tmp_path).events()) == 1


RACER = """
import sys
from pathlib import Path
from cordon.errors import BudgetExceeded
from cordon.ledger.site import Event, Grouping, SiteLedger

PATIENTS = Grouping("patient", "mlp", 256, 40)

_, path, run, epsilon = sys.argv
held = SiteLedger(Path(path), epsilon=float(epsilon), delta=1e-5)
for number in range(1, 7):
    try:
        held.reserve(run, number, Event(2.0, 0.1, 10), PATIENTS, accountant="rdp")
    except BudgetExceeded as error:
        sys.exit(error.exit_code)
    held.mark_sent(run, number)
"""


@pytest.mark.stress
def test_two_processes_at_once_share_one_budget(tmp_path):
    budget = epsilon_rdp([EVENT] * 5, 1e-5)
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path / "site.sqlite"), run, repr(budget)])
        for run in "ab"
    ]
    assert [racer.wait(timeout=120) for racer in racers] == [3, 3]
    held = ledger(tmp_path, epsilon=budget)
    assert len(held.events()) == 5
    assert held.spent() <= budget
    assert sum(row["kind"] == "sent" for row in held._log) == 5


def test_a_round_reserved_by_two_processes_is_answered_by_one(tmp_path):
    first, second = ledger(tmp_path), ledger(tmp_path)
    first.reserve("a", 1, EVENT, PATIENTS, accountant="rdp")
    second.reserve("a", 1, EVENT, PATIENTS, accountant="rdp")
    second.mark_sent("a", 1)
    with pytest.raises(UserError, match="round 1 of run a was answered before"):
        first.mark_sent("a", 1)
    assert ledger(tmp_path).events() == [EVENT]


def test_what_was_not_reserved_is_not_marked_as_sent(tmp_path):
    with pytest.raises(UserError, match="round 1 of run a was not reserved"):
        ledger(tmp_path).mark_sent("a", 1)


def test_the_budget_and_each_change_of_it_are_on_record(tmp_path):
    for number, (epsilon, delta) in enumerate([(8, 1e-5), (8.0, 1e-5), (9.0, 1e-5), (9.0, 1e-6)]):
        ledger(tmp_path, epsilon=epsilon, delta=delta).reserve("a", number, EVENT, PATIENTS, accountant="rdp")
    budgets = [row for row in ledger(tmp_path)._log if row["kind"] == "budget"]
    assert [(row["epsilon"], row["delta"]) for row in budgets] == [(8.0, 1e-5), (9.0, 1e-5), (9.0, 1e-6)]


TIPS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["k", "l"]), st.integers(0, 4), st.sampled_from("xy")),
    max_size=8,
)


@pytest.mark.stress
@settings(max_examples=60, deadline=None)
@given(TIPS)
def test_another_ledger_is_followed_only_forwards(tips):
    """Tips as (run, key, rows, digest), each held against the last one under its key."""
    with TemporaryDirectory() as folder:
        last, keys = {}, {}
        for run, key, rows, digest in tips:
            held = ledger(Path(folder))  # what was seen outlives the process
            seen = last.get(key, (0, digest))
            other_key = any(seen_run == run for seen_run in keys.get({"k": "l", "l": "k"}[key], ()))
            if other_key or rows < seen[0] or (key in last and rows == seen[0] and digest != seen[1]):
                with pytest.raises(FederationError, match=r"the aggregator's ledger has .* Ask the operator"):
                    held.follow(run, Tip(key, rows, digest))
                continue
            held.follow(run, Tip(key, rows, digest))
            last[key] = (rows, digest)
            keys.setdefault(key, set()).add(run)


def test_the_same_tip_again_is_no_new_row_and_what_was_followed_costs_nothing(tmp_path):
    held = ledger(tmp_path)
    for tip in (Tip("k", 3, "x"), Tip("k", 3, "x"), Tip("k", 5, "y")):
        held.follow("a", tip)
    rows = list(ChainedLog(tmp_path / "site.sqlite"))
    assert rows == [
        {"kind": "followed", "run": "a", "key": "k", "rows": 3, "digest": "x"},
        {"kind": "followed", "run": "a", "key": "k", "rows": 5, "digest": "y"},
    ]
    assert (held.events(), held.answered("a")) == ([], 0)
    assert accounts(rows) == []


def test_the_last_round_that_was_answered_is_known_by_run(tmp_path):
    held = ledger(tmp_path, epsilon=99.0)
    for run, number in (("a", 1), ("a", 3), ("b", 2)):
        held.reserve(run, number, EVENT, PATIENTS, accountant="rdp")
        assert held.answered(run) < number  # reserved is not answered
        held.mark_sent(run, number)
    assert [ledger(tmp_path).answered(run) for run in ("a", "b", "c")] == [3, 2, 0]


def test_rows_of_before_sites_were_counted_are_of_one_and_their_reservation_is_used_again(tmp_path):
    held = ledger(tmp_path)
    held.reserve("a", 1, EVENT, PATIENTS, accountant="rdp")
    (row,) = [dict(row) for row in held._log if row["kind"] == "reserved"]
    old = {name: value for name, value in row["event"].items() if name != "sites"}
    named = {name: row[name] for name in ("kind", "run", "unit", "declared_units", "grouping")}
    held._log.append(named | {"round": 2, "event": old})
    assert held.events() == [EVENT, EVENT]
    held.reserve("a", 2, EVENT, PATIENTS, accountant="rdp")
    assert len(held.events()) == 2


def test_a_site_whose_patients_may_be_at_two_sites_stops_where_both_reach_its_budget(tmp_path):
    both = replace(EVENT, sites=2)
    budget = epsilon_rdp([EVENT] * 3, 1e-5)
    alone, together = ledger(tmp_path / "one", epsilon=budget), ledger(tmp_path / "two", epsilon=budget)
    for number in (1, 2, 3):
        alone.reserve("a", number, EVENT, PATIENTS, accountant="rdp")
    together.reserve("a", 1, both, PATIENTS, accountant="rdp")
    assert together.spent() == epsilon_rdp([EVENT] * 2, 1e-5)
    with pytest.raises(BudgetExceeded):
        together.reserve("a", 2, both, PATIENTS, accountant="rdp")


def test_a_ledger_is_its_owners_alone(tmp_path):
    before = os.umask(0o022)
    try:
        ledger(tmp_path / "state").reserve("a", 1, EVENT, PATIENTS, accountant="rdp")
    finally:
        os.umask(before)
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
    assert set(modes.values()) == {0o600}, modes
