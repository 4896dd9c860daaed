"""Who may take part: enrolled keys, and those that are banned, as rows of the aggregator's own ledger.

Nothing is kept beside the ledger, so whoever reads it sees who was enrolled, banned and released, between
which runs, and why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cordon.errors import UserError
from cordon.federation.audit import QUARANTINED, identity
from cordon.federation.plan import Site
from cordon.ledger import ChainedLog

ENROLLED, BANNED, RELEASED = "enrolled", "banned", "released"
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

    def enrol(self, site: Site) -> None:
        """Take ``site`` in, or change what it declared, or its key; a banned key stays banned.

        UserError where the key is another site's.
        """
        with self._log.locked():
            for member in self._members():
                if member.site == site and member.current:
                    return
                if member.identity == identity(site) and member.site.name != site.name:
                    raise UserError(
                        f"the key of {site.name} is enrolled as {member.site.name}. Give each site its own."
                    )
            self._log.append(
                {
                    "kind": ENROLLED, "identity": identity(site), "site": site.name,
                    "declared_patients": site.declared_patients, "weight": site.weight,
                    "public_key": site.public_key,
                }
            )  # fmt: skip

    def members(self) -> list[Member]:
        """Every key that was enrolled, by name, with the declaration that it was last enrolled with."""
        with self._log.locked():
            return self._members()

    def ban(self, name: str, reason: str, *, by: str = "operator") -> None:
        """Refuse a site (its name, or its identity) from now on, in every run, until it is released."""
        self._decide(BANNED, name, reason, by)

    def release(self, name: str, reason: str) -> None:
        """Let a banned site take part again; its offences begin anew."""
        self._decide(RELEASED, name, reason, "operator")

    def banned(self, site: Site) -> str:
        """Why the site's key is banned; empty where it is not."""
        with self._log.locked():  # another process may have banned it just now
            return self._banned(identity(site))

    def sentence(self, site: Site, *, ban_after: int = BAN_AFTER) -> bool:
        """Ban ``site`` where it has been quarantined in ``ban_after`` runs; whether it is banned now."""
        with self._log.locked():
            key = identity(site)
            offences = self._offences(key)
            if not self._banned(key) and len(offences) >= ban_after:
                reason = f"quarantined in {len(offences)} runs, last: {offences[-1]['reason']}"
                self._log.append({"kind": BANNED, "identity": key, "reason": reason, "by": "aggregator"})
            return bool(self._banned(key))

    def _decide(self, kind: str, name: str, reason: str, by: str) -> None:
        if not reason.strip():
            raise UserError("a ban and a release need a reason: it stands in the ledger. Give --reason.")
        with self._log.locked():
            members = self._members()
            found = [m for m in members if m.identity == name or (m.current and m.site.name == name)]
            if not found:
                known = ", ".join(member.site.name for member in members if member.current) or "nobody"
                raise UserError(f"no site {name!r} is enrolled; {known} is. Enrol it first.")
            if bool(found[0].banned) == (kind == BANNED):
                standing = "banned already" if kind == BANNED else "not banned"
                raise UserError(f"{found[0].site.name} is {standing}.")
            self._log.append(
                {"kind": kind, "identity": found[0].identity, "reason": reason.strip(), "by": by}
            )

    def _members(self) -> list[Member]:
        latest: dict[str, Site] = {}
        current: dict[str, str] = {}
        for row in self._log.of_kind(ENROLLED):
            site = Site(row["site"], row["declared_patients"], row["weight"], row["public_key"])
            latest[row["identity"]] = site
            current[site.name] = row["identity"]
        members = [
            Member(site, key, self._banned(key), len(self._offences(key)), current[site.name] == key)
            for key, site in latest.items()
        ]
        return sorted(members, key=lambda member: (member.site.name, not member.current))

    def _banned(self, key: str) -> str:
        rows = [row for row in self._log if row["kind"] in (BANNED, RELEASED) and row["identity"] == key]
        return str(rows[-1]["reason"]) if rows and rows[-1]["kind"] == BANNED else ""

    def _offences(self, key: str) -> list[dict[str, Any]]:
        """The first quarantine of each run since the last release."""
        found: dict[str, dict[str, Any]] = {}
        for row in self._log:
            if row.get("identity") != key:
                continue
            if row["kind"] == RELEASED:
                found.clear()
            elif row["kind"] == "decision" and row["decision"] == QUARANTINED:
                found.setdefault(row["run"], row)
        return list(found.values())
