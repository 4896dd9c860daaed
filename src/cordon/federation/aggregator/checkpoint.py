"""Where a run stands after each round, on disk, so that an aggregator that dies goes on where it was.

A checkpoint is written beside the last one before the round's decisions are, and takes its place after
them: whichever of the two the ledger bears out is the one that counts. No update is averaged twice, then, and
none that the ledger says was accepted is lost. A checkpoint or a ledger that was put back from a copy is
refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from cordon.errors import UserError
from cordon.federation.aggregator.record import RoundRecord
from cordon.federation.plan import Plan
from cordon.files import parse_json, write_durably
from cordon.ledger.log import ChainedLog
from cordon.ledger.rows import DecisionFields, Kind
from cordon.model.architectures import Parameters

NAME = "run.checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """A run after ``round`` rounds.

    ``late`` are the models after the last rounds, the current one last; ``ended`` the decisions that ended
    a site's part, by site; ``rounds`` the record's; ``head`` the hash of the ledger's last row then.
    """

    plan: Plan
    round: int
    parameters: Parameters
    late: list[Parameters] = field(default_factory=list)
    ended: dict[str, DecisionFields] = field(default_factory=dict)
    rounds: list[RoundRecord] = field(default_factory=list)
    head: str = ""

    def to_bytes(self) -> bytes:
        from safetensors.numpy import save

        about = {
            "plan": self.plan.to_dict(), "round": self.round, "ended": self.ended, "rounds": self.rounds,
            "late": len(self.late), "head": self.head,
        }  # fmt: skip
        models = {"now": self.parameters, **{f"late{n}": model for n, model in enumerate(self.late)}}
        arrays = {f"{where}/{name}": a for where, model in models.items() for name, a in model.items()}
        return bytes(save(arrays, metadata={"checkpoint": json.dumps(about)}))

    @classmethod
    def from_bytes(cls, content: bytes) -> Checkpoint:
        """ValueError, KeyError or TypeError where ``content`` is no checkpoint."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(content)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        size = int.from_bytes(content[:8], "little")
        about = parse_json(parse_json(content[8 : 8 + size])["__metadata__"]["checkpoint"])
        models: dict[str, Parameters] = {}
        for key, value in arrays.items():
            where, _, name = key.partition("/")
            models.setdefault(where, {})[name] = value
        return cls(
            Plan.from_dict(about["plan"]), about["round"], models["now"],
            [models[f"late{n}"] for n in range(about["late"])],
            about["ended"], about["rounds"], about["head"],
        )  # fmt: skip


class Checkpoints:
    """The checkpoint of an aggregator's unfinished run, below its ``state`` folder."""

    def __init__(self, state: Path, ledger: ChainedLog) -> None:
        self._current, self._next = state / NAME, state / f"{NAME}.next"
        self._ledger = ledger

    def prepare(self, checkpoint: Checkpoint) -> None:
        """Write what counts as soon as the ledger holds the row ``checkpoint.head``."""
        write_durably(self._next, checkpoint.to_bytes())

    def settle(self) -> None:
        """Let what was prepared take the last checkpoint's place."""
        self._next.replace(self._current)

    def resume(self, plan: Plan) -> Checkpoint | None:
        """The unfinished run of ``plan``; None where there is none.

        UserError where it is of another plan, or where the ledger does not hold the row that it ends with:
        one of the two was put back from a copy.
        """
        held = [self._read(path) for path in (self._next, self._current) if path.exists()]
        if not held:
            return None
        borne_out = [checkpoint for checkpoint in held if self._ledger.holds(checkpoint.head)]
        if not borne_out:
            raise UserError(
                f"{self._current}: the ledger beside it lacks the last row that this unfinished run wrote: "
                "it is an older copy. Restore the ledger, or remove the checkpoint to give the run up: what "
                "its sites spent on it stays spent."
            )
        newest = max(borne_out, key=lambda checkpoint: checkpoint.round)
        if plan.to_dict() | {"run": newest.plan.run} != newest.plan.to_dict():
            raise UserError(
                f"{self._current}: run {newest.plan.run} of another plan is not finished "
                f"({newest.round} of {newest.plan.rounds} rounds). Start the aggregator with its plan, or "
                "remove the checkpoint to give the run up: what its sites spent on it stays spent."
            )
        judged = [
            row["round"]
            for row in self._ledger
            if row["kind"] == Kind.DECISION and row["run"] == newest.plan.run
        ]
        if max(judged, default=0) > newest.round:
            raise UserError(
                f"{self._current}: an older copy, after round {newest.round}, where the ledger has round "
                f"{max(judged)}. Restore the newest one, or remove it to give the run up: what its sites "
                "spent on it stays spent."
            )
        return newest

    def discard(self) -> None:
        """The run is over."""
        for path in (self._next, self._current):
            path.unlink(missing_ok=True)

    def _read(self, path: Path) -> Checkpoint:
        try:
            return Checkpoint.from_bytes(path.read_bytes())
        except (ValueError, KeyError, TypeError, UserError) as error:
            raise UserError(
                f"{path}: not a checkpoint ({error}). Remove it to give the run up: what its sites spent on "
                "it stays spent."
            ) from error
