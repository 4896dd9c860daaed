"""Who may take part: enrolled keys, and those that are banned, as rows of the aggregator's own ledger.

Nothing is kept beside the ledger, so whoever reads it sees who was enrolled, banned and released, between
which runs, and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cordon.errors import UserError
from cordon.federation.aggregator.history import IdentityRows
from cordon.federation.plan import Site, identity
from cordon.ledger.log import ChainedLog
from cordon.ledger.rows import DecisionRow, Judgement, Kind

# Runs in which an identity was quarantined, since it was last released, after which it is banned.
BAN_AFTER = 3


@dataclass(frozen=True)
class Member:
    """A site that is enrolled: its ``identity``, why it is ``banned`` (or ""), and its ``offences``.

    Offences are the runs in which it was quarantined since it was last released. A key that another one of
    the same site took the place of is not ``current``: it takes no part, and stays listed with its bans.
    """

    site: Site
    identity: str
    banned: str
    offences: int
    current: bool


class Registry:
    """The identities in an aggregator's ledger."""

    def __init__(self, log: ChainedLog) -> None:
        self._log = log
        self._history = IdentityRows(log)

    def enrol(self, *sites: Site) -> None:
        """Take ``sites`` in, or change what they declared, or their keys; a banned key stays banned.

        UserError (nothing changed) where a key is another site's.
        """
        with self._log.locked():
            latest, current = self._enrolled()
            for site in sites:
                key = identity(site)
                if key in latest and latest[key].name != site.name:
                    raise UserError(
                        f"the key of {site.name} is enrolled as {latest[key].name}. Give each site its own."
                    )
                if latest.get(key) == site and current[site.name] == key:
                    continue
                latest[key], current[site.name] = site, key
                self._log.append(
                    {
                        "kind": Kind.ENROLLED, "identity": key, "site": site.name,
                        "declared_patients": site.declared_patients, "weight": site.weight,
                        "public_key": site.public_key,
                    }
                )  # fmt: skip

    def members(self) -> list[Member]:
        """Every key that was enrolled, by name, with the declaration that it was last enrolled with."""
        with self._log.locked():
            return self._members()

    def ban(self, name: str, reason: str) -> None:
        """Refuse a site (its name, or its identity) from now on, in every run, until it is released."""
        self._decide(Kind.BANNED, name, reason)

    def release(self, name: str, reason: str) -> None:
        """Let a banned site take part again; its offences begin anew."""
        self._decide(Kind.RELEASED, name, reason)

    def banned(self, site: Site) -> str:
        """Why the site's key is banned; empty where it is not."""
        return self.bans([site]).get(site, "")

    def bans(self, sites: Sequence[Site]) -> dict[Site, str]:
        """Those of ``sites`` whose keys are banned, and why."""
        with self._log.locked():  # another process may have banned one just now
            reasons = {site: self._banned(identity(site)) for site in sites}
        return {site: reason for site, reason in reasons.items() if reason}

    def sentence(self, site: Site, *, ban_after: int = BAN_AFTER) -> bool:
        """Ban ``site`` where it has been quarantined in ``ban_after`` runs; whether it is banned now."""
        with self._log.locked():
            key = identity(site)
            offences = self._offences(key)
            if not self._banned(key) and len(offences) >= ban_after:
                reason = f"quarantined in {len(offences)} runs, last: {offences[-1]['reason']}"
                self._log.append({"kind": Kind.BANNED, "identity": key, "reason": reason, "by": "aggregator"})
            return bool(self._banned(key))

    def _decide(self, kind: Literal[Kind.BANNED, Kind.RELEASED], name: str, reason: str) -> None:
        if not reason.strip():
            raise UserError("a ban and a release need a reason: it stands in the ledger. Give --reason.")
        with self._log.locked():
            members = self._members()
            found = [m for m in members if m.identity == name or (m.current and m.site.name == name)]
            if not found:
                known = ", ".join(member.site.name for member in members if member.current) or "nobody"
                raise UserError(f"no site {name!r} is enrolled; {known} is. Enrol it first.")
            if bool(found[0].banned) == (kind == Kind.BANNED):
                standing = "banned already" if kind == Kind.BANNED else "not banned"
                raise UserError(
                    f"{found[0].site.name} is {standing}. See who is what with `cordon aggregator list`."
                )
            key = found[0].identity
            self._log.append({"kind": kind, "identity": key, "reason": reason.strip(), "by": "operator"})

    def _members(self) -> list[Member]:
        latest, current = self._enrolled()
        members = [
            Member(site, key, self._banned(key), len(self._offences(key)), current[site.name] == key)
            for key, site in latest.items()
        ]
        return sorted(members, key=lambda member: (member.site.name, not member.current))

    def _enrolled(self) -> tuple[dict[str, Site], dict[str, str]]:
        """By identity, the declaration that it was last enrolled with; and each name's identity now."""
        latest: dict[str, Site] = {}
        current: dict[str, str] = {}
        for row in [row for row in self._log if row["kind"] == Kind.ENROLLED]:
            latest[row["identity"]] = Site(
                row["site"], row["declared_patients"], row["weight"], row["public_key"]
            )
            current[row["site"]] = row["identity"]
        return latest, current

    def _banned(self, key: str) -> str:
        rows = [row for row in self._history.of(key) if row["kind"] in (Kind.BANNED, Kind.RELEASED)]
        return rows[-1]["reason"] if rows and rows[-1]["kind"] == Kind.BANNED else ""

    def _offences(self, key: str) -> list[DecisionRow]:
        """The first quarantine of each run since the last release."""
        found: dict[str, DecisionRow] = {}
        for row in self._history.of(key):
            if row["kind"] == Kind.RELEASED:
                found.clear()
            elif row["kind"] == Kind.DECISION and row["decision"] == Judgement.QUARANTINED:
                found.setdefault(row["run"], row)
        return list(found.values())
