"""Tests of cordon.federation.messages: what may be on the wire, both ways."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given, settings
from hypothesis import strategies as st

from cordon.cli import main as cordon
from cordon.errors import FederationError, UserError
from cordon.federation.messages import MalformedMessage, Outcome, Reply, ReplyStatus, Task
from cordon.federation.plan import Plan
from cordon.federation.site import participate
from cordon.federation.site.participate import Participant
from cordon.federation.site.terms import Terms
from cordon.ledger.hash_chain import new_key
from cordon.ledger.log import ChainedLog, Tip
from cordon.ledger.provenance import LONGEST, Provenance, installed
from cordon.ledger.site import SiteLedger
from cordon.model.initial_weights import initial_parameters
from cordon.privacy.events import Event
from cordon.training.units import Units

PLAN = Plan(
    run="run-7", model="logistic", unit="patient", epsilon=8.0, delta=1e-5, rounds=10, local_steps=1,
    sampling_rate=0.3, noise_multiplier=2.0, clip_norm=1.0, learning_rate=0.5, max_variants_per_patient=16,
)  # fmt: skip
UPDATE = {"0.weight": np.array([[0.5, -0.25, 1e-30]], np.float32), "0.bias": np.array([3.0], np.float32)}
KEY = new_key()[0]
TIP = Tip.signed(12, "cd" * 32, KEY)
TERMS = Terms("s", 4)
TRAINED_REPLY = Reply(ReplyStatus.TRAINED, "run-7", 3, PLAN.event, UPDATE)

# The egress rule: all that a site ever sends. Whoever lengthens this list says why in the privacy statement.
EGRESS = {
    ("declaration", "status"), ("declaration", "run"), ("declaration", "round"),
    ("declaration", "mechanism"), ("declaration", "noise_multiplier"), ("declaration", "sampling_rate"),
    ("declaration", "steps"), ("declaration", "sites"), ("declaration", "provenance"),
    ("update", "0.weight"), ("update", "0.bias"),
}  # fmt: skip


@pytest.fixture
def task_message(monkeypatch):
    """A training task as it reaches a site."""
    from flwr.app import Message

    for name, value in (("_run_id", 1), ("_node_id", 2), ("_task_id", 3)):
        monkeypatch.setattr(TaskIdentity, name, value)
    task = Task(PLAN, 3, 4, initial_parameters("logistic", 3), TIP)
    return Message(task.to_records(), dst_node_id=5, message_type="train")


def on_the_wire(content, reply_to):
    """``content`` as Flower sends it, and as it comes out at the other end."""
    from flwr.app import Message

    sent = message_to_proto(Message(content, reply_to=reply_to)).SerializeToString()
    return sent, message_from_proto(ProtoMessage.FromString(sent)).content


def same(first, second):
    assert set(first) == set(second)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert all(second[name].dtype == np.float32 for name in second)


@pytest.mark.parametrize(
    "reply",
    [
        TRAINED_REPLY,
        Reply(ReplyStatus.STOPPED, "run-7", 3),
        Reply(ReplyStatus.ANSWERED, "run-7", 3),
        Reply(ReplyStatus.RECEIVED, "run-7", 0),
    ],
    ids=lambda r: r.status,
)
def test_a_reply_crosses_the_wire_unchanged(reply, task_message):
    again = Reply.from_records(on_the_wire(reply.to_records(), task_message)[1])
    assert replace(again, update=None) == replace(reply, update=None)
    if reply.update is not None:
        same(reply.update, again.update)


def test_a_task_crosses_the_wire_unchanged(task_message):
    again = Task.from_records(message_from_proto(message_to_proto(task_message)).content)
    assert (again.plan, again.round, again.declared_patients, again.tip) == (PLAN, 3, 4, TIP)
    same(initial_parameters("logistic", 3), again.parameters)


@pytest.mark.parametrize("parameters", [UPDATE, {}], ids=["with a model", "without"])
def test_an_outcome_crosses_the_wire_unchanged(parameters, task_message):
    outcome = Outcome("run-7", "finished", "", '{"epsilon": 8.0}', "logistic", PLAN, parameters, TIP)
    again = Outcome.from_records(on_the_wire(outcome.to_records(), task_message)[1])
    assert replace(again, parameters={}) == replace(outcome, parameters={})
    same(parameters, again.parameters)


def walked(content):
    return {(record, key) for record, values in content.items() for key in values}


def test_a_real_reply_holds_what_the_egress_rule_names_and_nothing_else(tmp_path, task_message):
    source = np.random.default_rng(0)
    units = Units.group(
        source.normal(size=(40, 3)).astype(np.float32), np.ones(40, np.float32),
        [f"secret-patient-{row % 4}" for row in range(40)], unit="patient",
    )  # fmt: skip
    ledger = SiteLedger(tmp_path / "secret-site.sqlite", epsilon=8, delta=1e-5)
    participant = Participant(
        Terms("secret-site", 4), lambda plan: units, ("f_a", "f_b", "f_c"), ledger=ledger,
        say=lambda words: None,
    )  # fmt: skip
    sent, content = on_the_wire(participant.handle(task_message), task_message)
    assert walked(content) == EGRESS
    assert content.metric_records == {}
    declared = {"status": "trained", "run": "run-7", "round": 3} | PLAN.event.to_dict()
    provenance = dict(content["declaration"]).pop("provenance")
    assert dict(content["declaration"]) == declared | {"provenance": provenance}
    assert Provenance.from_text(provenance) == installed()
    assert not any(secret in sent for secret in (b"secret", str(tmp_path).encode(), b"f_a"))
    # An array is its numbers: what stands beside them on the wire is the same at every site.
    for name, array in content["update"].items():
        start = initial_parameters("logistic", 3)[name]
        assert (array.dtype, tuple(array.shape), array.stype) == ("float32", start.shape, "numpy.ndarray")
        assert array.data == Array.from_numpy_ndarray(array.numpy()).data


@pytest.mark.parametrize("status", [ReplyStatus.STOPPED, ReplyStatus.ANSWERED, ReplyStatus.RECEIVED])
def test_a_site_that_did_not_train_sends_no_event_and_no_update(status):
    content = Reply(status, "run-7", 3, PLAN.event, UPDATE).to_records()
    assert walked(content) == {("declaration", key) for key in ("status", "run", "round")}


def records(**changes):
    """The records of a sound reply with some replaced, added or (None) left out."""
    content = dict(TRAINED_REPLY.to_records().items()) | changes
    return RecordDict({name: record for name, record in content.items() if record is not None})


def declaration(**changes):
    values = dict(TRAINED_REPLY.to_records()["declaration"]) | changes
    return ConfigRecord({name: value for name, value in values.items() if value is not None})


@settings(max_examples=60, deadline=None)
@given(st.text(), st.sampled_from([ConfigRecord({"a": 1}), MetricRecord({"loss": 0.1}), ArrayRecord()]))
def test_another_record_is_refused(name, record):
    if name not in ("declaration", "update"):
        with pytest.raises(MalformedMessage, match="a reply with records"):
            Reply.from_records(records(**{name: record}))


@settings(max_examples=60, deadline=None)
@given(st.text(), st.one_of(st.integers(-9, 9), st.floats(), st.text(), st.binary(), st.booleans()))
def test_another_key_in_the_declaration_is_refused(name, value):
    if name not in declaration():
        with pytest.raises(MalformedMessage, match="a declaration with"):
            Reply.from_records(records(declaration=declaration(**{name: value})))


@pytest.mark.parametrize("key", sorted(declaration()))
def test_a_missing_key_in_the_declaration_is_refused(key):
    with pytest.raises(MalformedMessage):
        Reply.from_records(records(declaration=declaration(**{key: None})))


@pytest.mark.parametrize("key", sorted(declaration()))
@pytest.mark.parametrize("value", [True, b"1", [1], [0.5], ["trained"], "x", 7, 0.5], ids=repr)
def test_a_declaration_of_another_type_is_refused(key, value):
    sound = declaration()[key]
    free = ("run", "round", "steps", "sites", "noise_multiplier", "sampling_rate")
    if type(value) is type(sound) and key in free:
        Reply.from_records(records(declaration=declaration(**{key: value})))
    else:
        with pytest.raises(MalformedMessage):
            Reply.from_records(records(declaration=declaration(**{key: value})))


@pytest.mark.parametrize(
    "changes",
    [{"noise_multiplier": v} for v in (0.0, -1.0, float("nan"), float("inf"), 0.01)]
    + [{"sampling_rate": v} for v in (0.0, 2.0, float("nan"))]
    + [{"steps": v} for v in (0, -3, 2**62)]
    + [{"sites": v} for v in (0, -3, 2**62)]
    + [{"mechanism": "Laplace"}, {"status": "finished"}, {"status": ReplyStatus.STOPPED}, {"status": ""}],
    ids=str,
)
def test_what_cannot_be_accounted_is_refused(changes):
    with pytest.raises(MalformedMessage):
        Reply.from_records(records(declaration=declaration(**changes)))


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        records(update=None),
        records(declaration=None),
        records(update=MetricRecord({"0.bias": 1.0})),
        records(update=ConfigRecord({"0.bias": b"1"})),
        records(declaration=MetricRecord({"round": 3})),
        RecordDict(
            {
                "declaration": ConfigRecord({"status": ReplyStatus.STOPPED, "run": "r", "round": 1}),
                "x": ArrayRecord(),
            }
        ),
    ],
    ids=[
        "nothing",
        "no update",
        "no declaration",
        "metric",
        "config",
        "metric declaration",
        "stopped and more",
    ],
)
def test_records_of_other_kinds_are_refused(content):
    with pytest.raises(MalformedMessage):
        Reply.from_records(content)


def npy(array, allow_pickle=False):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def npz():
    buffer = io.BytesIO()
    np.savez(buffer, np.ones(1, np.float32))
    return buffer.getvalue()


def huge():
    """A header that asks for four terabytes."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    return buffer.getvalue() + b"\0" * 64


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize(
    "data",
    {
        "float64": npy(np.ones(3)),
        "integers": npy(np.ones(3, np.int32)),
        "big endian": npy(np.ones(3, ">f4")),
        "text": npy(np.array(["a"])),
        "structured": npy(np.zeros(2, [("a", "f4")])),
        "pickle": npy(np.array([Bomb()], dtype=object), allow_pickle=True),
        "bare pickle": b"\x80\x04N.",
        "archive": npz(),
        "broken archive": b"PK\x03\x04" + b"\0" * 40,
        "terabytes": huge(),
        "truncated": npy(np.ones(30, np.float32))[:-8],
        "empty": b"",
    }.items(),
    ids=lambda item: item[0],
)
def test_an_array_that_is_no_float32_is_refused(data):
    array = Array(dtype="float32", shape=(3,), stype="numpy.ndarray", data=data[1])
    with pytest.raises(MalformedMessage):
        Reply.from_records(records(update=ArrayRecord({"0.bias": array})))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_whatever_bytes_an_array_holds_the_receiver_refuses_or_reads_float32(data, headed):
    data = npy(UPDATE["0.bias"])[: len(data)] + data if headed else data
    array = Array(dtype="float32", shape=(1,), stype="numpy.ndarray", data=data)
    try:
        reply = Reply.from_records(records(update=ArrayRecord({"0.bias": array})))
    except MalformedMessage:
        return
    assert reply.update["0.bias"].dtype == np.float32


def test_an_array_that_is_not_numpys_is_refused():
    array = Array(dtype="float32", shape=(1,), stype="torch.Tensor", data=npy(UPDATE["0.bias"]))
    with pytest.raises(MalformedMessage, match="cannot be read as arrays"):
        Reply.from_records(records(update=ArrayRecord({"0.bias": array})))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_task_from_a_model_that_is_not_finite_is_refused_before_anything_is_reserved(
    value, tmp_path, task_message
):
    task_message.content["model"] = ArrayRecord({"0.bias": Array.from_numpy_ndarray(np.float32([value]))})
    with pytest.raises(MalformedMessage, match="NaN or infinity"):
        Task.from_records(task_message.content)
    ledger = SiteLedger(tmp_path / "site.sqlite", epsilon=8, delta=1e-5)
    participant = Participant(TERMS, lambda plan: pytest.fail("loaded"), (), ledger=ledger, say=print)
    with pytest.raises(MalformedMessage):
        participant.handle(task_message)
    assert ledger.events() == []


@pytest.mark.parametrize(
    "kind", ["extra record", "extra word", "no plan", "other plan", "round as text", "no tip"]
)
def test_another_task_is_refused(kind, task_message):
    content = task_message.content
    if kind == "extra record":
        content["code"] = ConfigRecord({"run": b"import os"})
    elif kind == "extra word":
        content["round"]["seed"] = 1
    elif kind == "no plan":
        del content["plan"]
    elif kind == "no tip":
        content["ledger"]["rows"] = 1.0
    elif kind == "other plan":
        content["plan"]["noise_multiplier"] = 0.0
    else:
        content["round"]["round"] = "3"
    with pytest.raises((MalformedMessage, UserError)):
        Task.from_records(content)


@pytest.mark.parametrize("change", [{"more": "x"}, {"reason": 3}, {"status": b"finished"}], ids=str)
def test_another_outcome_is_refused(change):
    content = Outcome("run-7", "finished", "", "{}", "logistic", PLAN, UPDATE, TIP).to_records()
    for name, value in change.items():
        content["outcome"][name] = value
    with pytest.raises(MalformedMessage, match="an outcome without its words"):
        Outcome.from_records(content)


def told(**changes):
    return json.dumps(installed().to_dict() | changes)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", told(code="x"), told(more=1), told(versions={"torch": "2 <b>"}),
        told(versions={"x": "1"}), told(verdicts={"noise": "splendid"}), told(verdicts={"9": "passed"}),
        told(seeded=0), " " * LONGEST + told(), "[" * 3999,
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_what_is_no_provenance_is_refused(text):
    with pytest.raises(MalformedMessage, match="provenance"):
        Reply.from_records(records(declaration=declaration(provenance=text)))


def test_what_computed_an_update_crosses_the_wire():
    said = Provenance("ab" * 32, {"torch": "2.15.0+cu126"}, {"noise": "failed"}, seeded=True)
    again = Reply.from_records(replace(TRAINED_REPLY, provenance=said).to_records()).provenance
    assert again == said
    assert again.digest == said.digest
    assert again.faults == ["seeded: not private", "its check of noise failed"]


def test_an_event_is_declared_as_it_is_accounted():
    reply = Reply(ReplyStatus.TRAINED, "run-7", 3, Event(1.25, 0.125, 9), UPDATE)
    assert Reply.from_records(reply.to_records()).event == Event(1.25, 0.125, 9)


WARM_UP = """
import sys
from dataclasses import replace
from pathlib import Path
from test_messages import PLAN, participant_of

for model in ("mlp", "pileup_cnn"):
    site = participant_of(Path(sys.argv[1]), agreed=replace(PLAN, model=model))
    site.warm_up()
    print(model, sorted({"torch", "opacus"} & {*sys.modules}))
"""


@pytest.mark.stress
def test_before_the_first_task_a_site_imports_what_its_plan_takes_and_no_more(tmp_path):
    command = [sys.executable, "-c", WARM_UP, str(tmp_path)]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, text=True, capture_output=True, check=True
    )
    assert done.stdout.splitlines() == ["mlp ['torch']", "pileup_cnn ['opacus', 'torch']"]


def participant_of(tmp_path, ledger=None, **changes):
    source = np.random.default_rng(0)
    units = Units.group(
        source.normal(size=(40, 3)).astype(np.float32), np.ones(40, np.float32), ["p"] * 40, unit="patient"
    )
    ledger = ledger or SiteLedger(tmp_path / "site.sqlite", epsilon=8, delta=1e-5)
    terms = replace(TERMS, **changes)
    return Participant(terms, lambda plan: units, ("a", "b", "c"), ledger=ledger, say=print)


def asked(participant, task_message, number, tip, plan=PLAN):
    task = Task(plan, number, 4, initial_parameters("logistic", 3), tip)
    task_message.content.clear()
    task_message.content.update(task.to_records())
    return Reply.from_records(participant.handle(task_message))


@pytest.mark.parametrize(
    ("agreed", "message"),
    [
        ({"agreed": replace(PLAN, unit="variant")}, "plan is not the one that was agreed"),
        ({"accountant": "pld"}, "budget is held against RDP, and s's against PLD"),
        ({"unit": "variant"}, "unit of privacy is one patient, and s's is one variant"),
        ({"agreed": replace(PLAN, noise_multiplier=9.0)}, "plan is not the one that was agreed"),
        ({"sites_per_patient": 2}, "counts a person at 1 sites, and s's may be at 2"),
        ({"declared_patients": 5}, "holds 4 declared patients for s, the site declared 5"),
    ],
    ids=["unit", "accountant", "the site's own unit", "noise", "sites of a person", "declared patients"],
)
def test_a_plan_or_a_declaration_that_was_not_agreed_is_refused_and_spends_nothing(
    agreed, message, tmp_path, task_message
):
    with pytest.raises(FederationError, match=message):
        asked(participant_of(tmp_path, **agreed), task_message, 1, TIP)
    assert SiteLedger(tmp_path / "site.sqlite", epsilon=8, delta=1e-5).events() == []


def test_after_the_last_day_of_its_study_a_site_trains_by_no_plan_and_spends_nothing(tmp_path, task_message):
    plan = replace(PLAN, expires="2020-01-31")
    with pytest.raises(UserError, match=r"was over on 2020-01-31, and today is "):
        asked(participant_of(tmp_path), task_message, 1, TIP, plan)
    with pytest.raises(UserError, match=r"was over on 2020-01-31"):
        participant_of(tmp_path, agreed=plan).warm_up()
    assert SiteLedger(tmp_path / "site.sqlite", epsilon=8, delta=1e-5).events() == []
    assert asked(participant_of(tmp_path), task_message, 1, TIP, replace(PLAN, expires="2999-01-31")).status


def test_a_sites_own_delta_is_held_against_the_patients_that_it_declared(tmp_path, task_message):
    """The budget is held at it, whatever less the plan has."""
    lax = SiteLedger(tmp_path / "site.sqlite", epsilon=8, delta=0.05)
    with pytest.raises(UserError, match=r"delta 0\.05 is above 0\.1 over its 4 declared units"):
        asked(participant_of(tmp_path, ledger=lax), task_message, 1, TIP)
    assert lax.events() == []


@pytest.mark.parametrize("number", [0, PLAN.rounds + 1, 2**40])
def test_a_round_that_the_plan_does_not_have_is_refused_and_spends_nothing(number, tmp_path, task_message):
    with pytest.raises(FederationError, match=f"round {number} of a plan of {PLAN.rounds} rounds"):
        asked(participant_of(tmp_path), task_message, number, TIP)
    assert SiteLedger(tmp_path / "site.sqlite", epsilon=8, delta=1e-5).events() == []


@pytest.mark.parametrize(
    "extreme",
    [{"clip_norm": 1e300}, {"sampling_rate": 1e-300}, {"noise_multiplier": 1e300}, {"learning_rate": 1e300},
     {"max_variants_per_patient": 99_999, "model": "pileup_cnn"}, {"rounds": 2**62}, {"run": "r" * 10**6}],
    ids=lambda extreme: next(iter(extreme)),
)  # fmt: skip
def test_an_extreme_plan_is_refused_before_rows_are_read_or_anything_is_written(
    extreme, tmp_path, task_message
):
    task_message.content["plan"] = ConfigRecord(PLAN.to_dict() | extreme)
    ledger = SiteLedger(tmp_path / "site.sqlite", epsilon=8, delta=1e-5)
    one = Participant(TERMS, lambda plan: pytest.fail("loaded"), ("a", "b", "c"), ledger=ledger, say=print)
    with pytest.raises(UserError, match="the plan cannot be run"):
        one.handle(task_message)
    assert list(ChainedLog(tmp_path / "site.sqlite")) == []


def test_a_model_of_another_shape_is_refused_before_anything_is_reserved(tmp_path, task_message):
    one = participant_of(tmp_path)
    content = Task(PLAN, 1, 4, initial_parameters("logistic", 4), TIP).to_records()
    task_message.content.clear()
    task_message.content.update(content)
    with pytest.raises(FederationError, match=r"has shape .* Nothing was reserved"):
        one.handle(task_message)
    assert SiteLedger(tmp_path / "site.sqlite", epsilon=8, delta=1e-5).events() == []


def test_units_that_were_grouped_by_another_unit_are_refused_before_anything_is_reserved(
    tmp_path, task_message
):
    """Whoever loads them may be wrong: their own type says what they are."""
    rows = Units.group(np.ones((4, 3), np.float32), np.ones(4, np.float32), ["p"] * 4, unit="variant")
    ledger = SiteLedger(tmp_path / "site.sqlite", epsilon=8, delta=1e-5)
    one = Participant(TERMS, lambda plan: rows, ("a", "b", "c"), ledger=ledger, say=print)
    with pytest.raises(UserError, match="grouped by variant, and one patient is to be protected"):
        asked(one, task_message, 1, TIP)
    assert ledger.events() == []


@pytest.mark.parametrize("tip", [{"digest": "x" * 10**6}, {"key": "é"}, {"rows": -1}], ids=str)
def test_a_tip_that_no_ledger_has_is_not_written_down(tip, tmp_path, task_message):
    with pytest.raises(MalformedMessage, match="a ledger's tip that no ledger has"):
        asked(participant_of(tmp_path), task_message, 1, replace(TIP, **tip))
    assert list(ChainedLog(tmp_path / "site.sqlite")) == []


@pytest.mark.stress
def test_units_are_those_of_each_tasks_own_plan(tmp_path, task_message, monkeypatch):
    """A plan by variant that the budget refuses leaves no rows behind for one by patient, nor a model's."""
    source = np.random.default_rng(0)
    rows, patients = source.normal(size=(40, 3)).astype(np.float32), [f"p{row % 4}" for row in range(40)]
    trained: list[tuple[str, int, int]] = []
    real = participate.train

    def train(model, start, units, settings, **rest):
        trained.append((model, len(units), int(np.diff(units.offsets).max())))
        return real(model, start, units, settings, **rest)

    monkeypatch.setattr(participate, "train", train)
    loaded: list[str] = []

    def load(plan):
        loaded.append(f"{plan.model} {plan.unit}")
        return Units.group(rows, np.ones(40, np.float32), patients, unit=plan.unit)

    ledger = SiteLedger(tmp_path / "site.sqlite", epsilon=8, delta=1e-5)
    one = Participant(TERMS, load, ("a", "b", "c"), ledger=ledger, say=print)

    def status(number, **changes):
        plan = replace(PLAN, **changes)
        content = Task(plan, number, 4, initial_parameters(plan.model, 3), TIP).to_records()
        task_message.content.clear()
        task_message.content.update(content)
        return Reply.from_records(one.handle(task_message)).status

    assert status(1, run="by-variant", unit="variant", noise_multiplier=0.3) == ReplyStatus.STOPPED
    assert status(2, run="by-variant", unit="variant") == ReplyStatus.STOPPED  # the run ended here
    assert status(1) == ReplyStatus.TRAINED
    assert status(2) == ReplyStatus.TRAINED
    assert status(3, model="mlp") == ReplyStatus.TRAINED
    assert trained == [("logistic", 4, 10), ("logistic", 4, 10), ("mlp", 4, 10)]
    assert loaded == ["logistic variant", "logistic patient", "mlp patient"]
    reserved = ChainedLog(tmp_path / "site.sqlite").of_kind("reserved")
    assert {row["unit"] for row in reserved} == {"patient"}
    assert [row["declared_units"] for row in reserved] == [4, 4, 4]
    assert [row["grouping"] for row in reserved] == [
        replace(PLAN, model=model).grouping(4).digest for model in ("logistic", "logistic", "mlp")
    ]


@pytest.mark.parametrize(("took", "left"), [(0.02, 0.5), (0.5, 0.5), (0.51, 1.0), (1.26, 1.5)])
def test_an_answer_leaves_on_a_grid_of_half_a_second(took, left, tmp_path, task_message, monkeypatch):
    """Or the time that it took would tell how many rows were drawn."""
    now = [100.0]
    clock = SimpleNamespace(
        monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds)
    )
    monkeypatch.setattr(participate, "time", clock)
    trained = participate.Participant._train

    def slow(self, message):
        reply = trained(self, message)
        now[0] += took
        return reply

    monkeypatch.setattr(participate.Participant, "_train", slow)
    assert asked(participant_of(tmp_path), task_message, 1, TIP).status == ReplyStatus.TRAINED
    assert now[0] - 100.0 == pytest.approx(left)


@pytest.mark.parametrize(
    "tip",
    [{"rows": 10**9}, {"rows": 10**9, "signature": ""}, {"signature": "00" * 64}, {"digest": "0f"}],
    ids=str,
)
def test_nobody_can_say_of_anothers_ledger_how_long_it_is(tip, tmp_path, task_message):
    """Another aggregator knows the honest one's public key, and would shut it out at the site for ever."""
    with pytest.raises(MalformedMessage, match="not signed by the ledger's key"):
        asked(participant_of(tmp_path), task_message, 1, replace(TIP, **tip))
    assert list(ChainedLog(tmp_path / "site.sqlite")) == []
    assert asked(participant_of(tmp_path), task_message, 2, TIP).status == ReplyStatus.TRAINED


def test_an_aggregator_that_went_back_is_taken_back_by_the_sites_owner(tmp_path, task_message):
    assert asked(participant_of(tmp_path), task_message, 2, TIP).status == ReplyStatus.TRAINED
    older = Tip.signed(5, "0f", KEY)
    with pytest.raises(FederationError, match=r"has 5 rows, and had 12.*follow-anew"):
        asked(participant_of(tmp_path), task_message, 3, older)
    words = ["ledger", "follow-anew", str(tmp_path / "site.sqlite"), "--reason", "restored of Monday"]
    wrong = CliRunner().invoke(cordon, [*words, "--aggregator", "ab" * 32])
    assert wrong.exit_code == 2
    assert TIP.key in wrong.output
    assert CliRunner().invoke(cordon, [*words, "--aggregator", TIP.key]).exit_code == 0
    spent = SiteLedger(tmp_path / "site.sqlite", epsilon=8, delta=1e-5).events()
    assert len(spent) == 1
    assert asked(participant_of(tmp_path), task_message, 3, older).status == ReplyStatus.TRAINED
    with pytest.raises(FederationError, match="has 4 rows, and had 5"):
        asked(participant_of(tmp_path), task_message, 4, Tip.signed(4, "0f", KEY))


def test_a_round_that_was_answered_is_not_trained_again(tmp_path, task_message):
    one = participant_of(tmp_path)
    assert asked(one, task_message, 2, TIP).status == ReplyStatus.TRAINED
    spent = SiteLedger(tmp_path / "site.sqlite", epsilon=8, delta=1e-5).events()
    # A new process at the site has the same memory: its ledger.
    again = asked(participant_of(tmp_path), task_message, 2, TIP)
    assert (again.status, again.round, again.update) == (ReplyStatus.ANSWERED, 2, None)
    assert SiteLedger(tmp_path / "site.sqlite", epsilon=8, delta=1e-5).events() == spent


@pytest.mark.parametrize(
    ("number", "tip", "message"),
    [
        (1, Tip.signed(14, "f1", KEY), "asks for round 1 of run run-7, and round 2 was answered"),
        (3, Tip.signed(11, "cd" * 32, KEY), "has 11 rows, and had 12"),
        (3, Tip.signed(12, "ef" * 32, KEY), "has another last row 12 than it had"),
        (3, Tip.signed(40, "cd" * 32, new_key()[0]), "has another key than earlier in this run"),
    ],
    ids=["an older round", "a shorter ledger", "another ledger", "another key"],
)
def test_an_aggregator_that_went_back_gets_nothing(number, tip, message, tmp_path, task_message):
    one = participant_of(tmp_path)
    assert asked(one, task_message, 2, TIP).status == ReplyStatus.TRAINED
    spent = SiteLedger(tmp_path / "site.sqlite", epsilon=8, delta=1e-5).events()
    with pytest.raises(FederationError, match=message):
        asked(one, task_message, number, tip)
    assert SiteLedger(tmp_path / "site.sqlite", epsilon=8, delta=1e-5).events() == spent
    assert asked(one, task_message, 3, Tip.signed(15, "01", KEY)).status == ReplyStatus.TRAINED
