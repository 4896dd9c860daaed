"""A ledger, a model and a certificate of a run of two sites that never was, for tests."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa

from conftest import table_row
from cordon.auditing import certificate
from cordon.auditing.attempts import Attempt
from cordon.auditing.certificate import Subject
from cordon.auditing.claims import check_claims
from cordon.auditing.release import AttackLimits, settings_of
from cordon.auditing.training import trained_by
from cordon.federation.plan import Plan
from cordon.ledger.hash_chain import read_private_key
from cordon.ledger.log import ChainedLog, key_path, read_log
from cordon.ledger.rows import Kind
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model
from cordon.privacy.accountants import epsilon_rdp
from cordon.privacy.events import GAUSSIAN
from cordon.privacy.guarantee import LIFETIME
from cordon.variants.features import FEATURES
from cordon.variants.table import LABELLED, write_table

PLAN = Plan.calibrated(
    run="2026-11-25-aa", model="logistic", unit="patient", epsilon=4.0, delta=1e-5, rounds=3, local_steps=4,
    sampling_rate=0.5, clip_norm=0.05, learning_rate=2.0, max_variants_per_patient=16,
)  # fmt: skip
SITES = [
    {"site": "north", "declared_patients": 20, "weight": 1.0, "status": "finished"},
    {"site": "south", "declared_patients": 30, "weight": 2.5, "status": "finished"},
]


class Lab:
    """An aggregator's ledger after a run of two sites, and the model that came of it."""

    def __init__(self, folder) -> None:
        self.path = folder / "ledger.sqlite"
        log = ChainedLog(self.path)
        for number in (1, 2, 3):
            for identity in ("a" * 64, "b" * 64):
                self.decide(log, identity, number)
        self.key = read_private_key(key_path(self.path))
        self.model = Model(
            "logistic", FEATURES, initial_parameters("logistic", len(FEATURES)),
            {
                "unit": "patient", "epsilon": epsilon_rdp([PLAN.event] * 3, 1e-5), "delta": 1e-5,
                "mechanism": GAUSSIAN, "adjacency": PLAN.adjacency, "accountant": "RDP", "rounds": 3,
                "scope": LIFETIME,
                "sites": 2, "run": PLAN.run, "plan": PLAN.digest,
                "ledger": {"key": log.tip.key, "rows": log.tip.rows, "digest": log.tip.digest},
            },
        )  # fmt: skip

    @staticmethod
    def decided_by(folder, provenance) -> None:
        """Add a decision on an update that came with ``provenance``, and costs nothing, to a lab's ledger."""
        ChainedLog(folder / "ledger.sqlite").append(
            {
                "kind": Kind.DECISION, "run": PLAN.run, "round": 3, "identity": "a" * 64, "budget": 4.0,
                "delta": 1e-5, "unit": "patient", "site": "x", "decision": "accepted", "reason": "",
                "events": [], "trained_by": provenance.digest, "provenance": provenance.to_dict(),
            }
        )  # fmt: skip

    def decide(self, log, identity, number, *, run=PLAN.run, event=PLAN.event, decision="accepted") -> None:
        log.append(
            {
                "kind": Kind.DECISION, "run": run, "round": number, "identity": identity, "budget": 4.0,
                "delta": 1e-5, "unit": "patient", "site": "x", "decision": decision, "reason": "",
                "events": [event.to_dict()], "epsilon_rdp": 1.0, "epsilon_pld": 1.0,
            }
        )  # fmt: skip

    @property
    def chain(self):
        return read_log(self.path, self.key.public_key())[0]

    def claims(self, model=None, plan=PLAN, **known):
        return check_claims(model or self.model, plan, self.chain, **known)

    def saying(self, **changes) -> Model:
        return replace(self.model, privacy=self.model.privacy | changes)

    def issue(self, folder, checks=(), key=None):
        path = folder / "certificate.json"
        found = self.claims()
        log = ChainedLog(self.path)
        attempt = Attempt(self.path, self.model.hash, settings_of(AttackLimits(), 64))
        tip = attempt.done([found, *checks])
        trained = trained_by(log, PLAN.run)
        subject = Subject(self.model, PLAN, SITES, tip, trained, attempt.to_dict())
        certificate.issue(path, subject, [found, *checks], found.figures, key or self.key)
        return path


def left_by_a_run(folder) -> None:
    """What a run leaves, in ``folder``: a ledger, a model, its record, and two tables of variants."""
    lab = Lab(folder)
    lab.model.save(folder / "model.safetensors")
    record = {"plan": PLAN.to_dict(), "model_hash": lab.model.hash, "sites": SITES}
    (folder / "federation.json").write_text(json.dumps(record))
    source = np.random.default_rng(4)
    for name, patients in (("trained", 14), ("held_out", 6)):
        rows = [
            table_row(
                patient=f"{name}{number % patients}", position=number + 1, label=int(source.random() < 0.8),
                **dict(zip(FEATURES, source.normal(size=len(FEATURES)).tolist(), strict=True)),
            )
            for number in range(20 * patients)
        ]  # fmt: skip
        write_table(pa.Table.from_pylist(rows, schema=LABELLED), folder / f"{name}.parquet")
