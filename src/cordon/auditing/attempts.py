"""Each audit of a model is on record: that it began, and what it found, in the ledger that it signs with.

An audit that is repeated until it passes, or is ended where it does not, shows in the certificate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cordon.auditing.checks import Check
from cordon.errors import UserError
from cordon.ledger import database
from cordon.ledger.log import ChainedLog, Tip
from cordon.ledger.provenance import Verdict, code_digest
from cordon.ledger.rows import AuditSettings, Kind, OnAudit


class Attempt:
    """One audit of the model ``model_hash``, with its public ``settings``; a row when it begins.

    ``number`` counts the audits of this model that the ledger at ``path`` knows of, this one with them.
    UserError where ``path`` is no ledger but an export.
    """

    def __init__(self, path: Path, model_hash: str, settings: AuditSettings) -> None:
        if not database.is_database(path):
            raise UserError(f"{path}: not a ledger, to which an audit can be added. Give the ledger itself.")
        self._log = ChainedLog(path)
        with self._log.locked():
            self._before = [
                row for row in self._log if row["kind"] == Kind.AUDIT and row["model"] == model_hash
            ]
            self.number = len(self._before) + 1
            self._about: OnAudit = {
                "attempt": self.number, "model": model_hash, "code": code_digest(), **settings,
            }  # fmt: skip
            self._log.append({"kind": Kind.AUDIT, **self._about})

    def _verdicts(self) -> dict[int, dict[str, Verdict]]:
        """What each audit of this model found, by attempt."""
        model = self._about["model"]
        ended = [row for row in self._log if row["kind"] == Kind.AUDITED and row["model"] == model]
        return {row["attempt"]: row["verdicts"] for row in ended}

    def done(self, checks: Sequence[Check]) -> Tip:
        """Record the verdicts; where the ledger is then."""
        verdicts = {check.name: check.verdict for check in checks}
        with self._log.locked():
            self._log.append({"kind": Kind.AUDITED, "verdicts": verdicts, **self._about})
        return self._log.tip

    def to_dict(self) -> dict[str, Any]:
        """Attempt and settings, and of earlier attempts the verdicts, None where they did not end."""
        ended = self._verdicts()
        earlier = [{"attempt": row["attempt"], "verdicts": ended.get(row["attempt"])} for row in self._before]
        return {"attempt": self.number, "earlier": earlier, **self._about}

    def statement(self) -> str:
        """How often this model was audited before, in a few words."""
        if self.number == 1:
            return "the first audit of this model"
        ended = self._verdicts()
        failed = sum(Verdict.FAILED in ended.get(row["attempt"], {}).values() for row in self._before)
        lost = sum(row["attempt"] not in ended for row in self._before)
        return f"audit {self.number} of this model: of those before, {failed} failed and {lost} did not end"
