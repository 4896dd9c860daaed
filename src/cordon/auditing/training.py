"""What trained a model, by what its sites say: code, software, and what their own checks of it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cordon.auditing.checks import Check
from cordon.ledger.hash_chain import Chain
from cordon.ledger.provenance import Provenance, ProvenanceFields, Verdict, code_digest
from cordon.ledger.rows import Judgement, Kind, Row, TestedRow

TRAINING = "Did the code that audits train at every site, with noise that is fresh?"


@dataclass(frozen=True)
class TrainedBy:
    """What ``site`` says computed its updates in a run; None where it says nothing."""

    site: str
    provenance: Provenance | None

    @property
    def same_code(self) -> bool:
        """Whether it is the code that audits."""
        return self.provenance is not None and self.provenance.code == code_digest()

    @property
    def faults(self) -> list[str]:
        said = self.provenance.faults if self.provenance else []
        return [f"{self.site}: {fault}" for fault in said]

    @property
    def doubts(self) -> list[str]:
        """Why what the audit found of its own code may not hold for what trained."""
        if self.provenance is None:
            return [f"{self.site} says nothing of what trained"]
        if not self.provenance.verdicts:
            return [f"{self.site} did not check what trained"]
        shown = [
            f"at {self.site} {', '.join(names)} was {verdict}"
            for verdict in (Verdict.UNTRIED, Verdict.UNABLE)
            if (names := [name for name, said in self.provenance.verdicts.items() if said == verdict])
        ]
        return shown + ([] if self.same_code else [f"at {self.site} other code trained than audits"])

    def statement(self) -> str:
        """One line for people."""
        if self.provenance is None:
            return f"{self.site}: nothing is said of what trained"
        said = self.provenance
        code = f"code {said.code[:12]}, {'the one' if self.same_code else 'not the one'} that audited"
        versions = ", ".join(f"{name} {version}" for name, version in sorted(said.versions.items()))
        verdicts = ", ".join(f"{name} {verdict}" for name, verdict in sorted(said.verdicts.items()))
        noise = "SEEDED: NOT PRIVATE" if said.seeded else "noise from the operating system's generator"
        return f"{self.site}: {code}; {noise}; {versions}; checks there: {verdicts or 'none'}"

    def to_dict(self) -> dict[str, Any]:
        said: Mapping[str, Any] = self.provenance.to_dict() if self.provenance else {}
        return {"site": self.site, "same_code": self.same_code, **said, "statement": self.statement()}


def trained_by(rows: Sequence[Row], run: str) -> list[TrainedBy]:
    """What is said by each site whose updates the model of ``run`` is made of, from whoever's ledger."""
    own = [row for row in rows if row["kind"] == Kind.TESTED and row["run"] == run]
    found = [TrainedBy("this site", Provenance.from_dict(_provenance(row))) for row in own]
    decided = [row for row in rows if row["kind"] == Kind.DECISION and row["run"] == run]
    said = {(row["identity"], row["trained_by"]): row["provenance"] for row in decided if "provenance" in row}
    taken = {
        (row["site"], row["identity"], row.get("trained_by", ""))
        for row in decided
        if row["decision"] == Judgement.ACCEPTED
    }
    for site, identity, digest in sorted(taken):
        text = said.get((identity, digest))
        found.append(TrainedBy(site, Provenance.from_dict(text) if text else None))
    return found


def _provenance(row: TestedRow) -> ProvenanceFields:
    return {
        "code": row["code"], "versions": row["versions"], "verdicts": row["verdicts"],
        "seeded": row["seeded"],
    }  # fmt: skip


def check_training(chain: Chain, run: str) -> Check:
    """Whether what the sites of ``run`` say of themselves fits what the audit shows of the code here."""
    sites = trained_by(chain.rows, run) or [TrainedBy("the ledger", None)]
    doubts = [doubt for site in sites for doubt in site.doubts]
    same = f"{len(sites)} of {len(sites)} say that the code which audits trained, and passed its checks there"
    return Check.of(
        "training", TRAINING, [fault for site in sites for fault in site.faults], "; ".join(doubts) or same,
        {"sites": [site.to_dict() for site in sites]},
        most="a site that says of itself that its noise is seeded, or that a check failed, would have failed "
        "it; what a site says may be wrong",
        able=not doubts,
    )  # fmt: skip
