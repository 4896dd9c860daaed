"""A site's visit to an aggregator: one task's part in a run, over one SuperNode or several."""

from __future__ import annotations

import random
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cordon import foreign
from cordon.console.progress import Say
from cordon.errors import FederationError, Leaving, Quarantined, Unreachable, UserError
from cordon.federation.flower.processes import DEALT_WITH, Process, supernode, way_out
from cordon.federation.flower.tasks import answer
from cordon.federation.messages import SiteStatus
from cordon.federation.pace import POLL, brisk
from cordon.federation.site.participate import Participant
from cordon.federation.site.walltime import Stay
from cordon.model.released import Model

if TYPE_CHECKING:
    from flwr.app import Message, RecordDict

    from cordon.transport.proxy import Proxy

# The SuperNode sends a reply on its own clock, and tries for so long (seconds) at most.
DELIVERY = 20.0
# When a SuperNode leaves, the SuperLink drops what it sent and the aggregator has not collected (seconds).
COLLECTION = 5.0
RESTART_PAUSE = 5.0
REFUSED = "the site refused the task or failed at it"


@dataclass(frozen=True)
class Connection:
    """How a site reaches the aggregator at ``address``, and whom it trusts there.

    ``key`` is the site's own. Its SuperNode trusts ``certificate``, or, with an attestation ``policy``, the
    certificate of the aggregator that satisfies it: asked anew for each SuperNode, before it starts.
    Connections go through the shared folder ``transport`` where there is one, else through the environment's
    proxy. UserError where nothing, or two things, say whom to trust.
    """

    address: str
    key: Path
    certificate: Path | None = None
    policy: Path | None = None
    transport: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) == (self.policy is None):
            raise UserError(
                "nothing, or two things, say whom to trust. Give --policy, or --certificate of an aggregator "
                "without attestation."
            )


def join(
    participant: Participant,
    connection: Connection,
    *,
    workdir: Path,
    join_deadline: float,
    say: Say,
    stay: Stay | None = None,
) -> Model:
    """Take part in a run until the aggregator ends it, and return its model.

    AttestationError where the aggregator does not satisfy the policy, Unreachable where no task comes within
    ``join_deadline`` seconds of starting or of the last one, or in a whole ``stay``, Leaving where the stay
    is over between rounds, Quarantined where the aggregator refused the site's updates, FederationError
    where the run failed.
    """
    participant.warm_up()
    workdir.mkdir(mode=0o700, parents=True, exist_ok=True)
    stay = stay or Stay()
    stay.heed_sigterm()
    with way_out(connection.address, connection.transport, participant.name, workdir) as proxy:
        visit = _Visit(participant, connection, workdir, join_deadline, say, stay, proxy)
        while participant.outcome is None:
            policy = connection.policy
            pinned = connection.certificate if policy is None else visit.attested(policy)
            if pinned is not None:
                visit.with_supernode(pinned)
            visit.leave_if_over()
    return _result(participant)


@dataclass
class _Visit:
    """One task's part in a run, over one SuperNode or several."""

    participant: Participant
    connection: Connection
    workdir: Path
    join_deadline: float
    say: Say
    stay: Stay
    proxy: Proxy | None

    def __post_init__(self) -> None:
        self._address = self.connection.address
        self._quiet_since = time.monotonic()
        self._heard = False

    def with_supernode(self, certificate: Path) -> None:
        """Answer tasks until the outcome is known, the SuperNode ends, or the stay is over."""
        key = self.connection.key
        node, tasks = supernode(self._address, certificate, key, self.workdir, self.proxy)
        self.say(f"SuperNode {node.pid} connects to {self._address}")
        answered, pace = 0, brisk()
        with node, closing(tasks):
            while not (self._done or self._late or node.exit_status() is not None):
                if answer(tasks, self._handle, refused=REFUSED):
                    self._quiet_since, self._heard = time.monotonic(), True
                    answered += 1
                    pace.found()
                pace.wait()
            if answered and self._done and time.monotonic() - self._quiet_since < DELIVERY:
                _await_delivery(node, answered)
                time.sleep(COLLECTION)
        if self._done:
            return
        if self._late:
            raise Unreachable(
                f"no task from the aggregator at {self._address} within {self.join_deadline:g} s; "
                f"{self.workdir / 'supernode.log'} says what the SuperNode saw. Check the address, the key's "
                f"enrolment and the aggregator.{self._elsewhere}"
            )
        # A SuperNode that died is refused until its last heartbeat has lapsed.
        self.say(f"SuperNode {node.pid} ended with status {node.exit_status()}; trying again")
        time.sleep(RESTART_PAUSE)

    @property
    def _elsewhere(self) -> str:
        """What to do where the aggregator may run on another node than this task."""
        if self.proxy is not None or not self._address.startswith("127."):
            return ""
        return " 127.0.0.1 is this node alone: where tasks run on several nodes, give --transport files."

    def leave_if_over(self) -> None:
        """Leaving where the stay is over, and Unreachable where it was for nothing."""
        if self.participant.outcome is not None or not self.stay.over:
            return
        if not self._heard and not self.stay.told:
            raise Unreachable(
                f"no task from the aggregator at {self._address} in all of this task's walltime. Start the "
                "aggregator first, or give the site more time."
            )
        raise Leaving(
            f"{self.participant.name} leaves between rounds: {self.stay.over}. Nothing is lost: started "
            "again, it goes on with the run."
        )

    def attested(self, policy: Path) -> Path | None:
        """The certificate of the attested aggregator, once it is there; None where the stay is over."""
        from cordon.attestation.client import fetch
        from cordon.attestation.policy import Policy

        required = Policy.read(policy)
        while not self.stay.over:
            try:
                attested = fetch(self._address, required, proxy=self.proxy)
            except Unreachable:
                if self._late:
                    raise
                # At random, so that a whole consortium that was turned away does not come back at once.
                time.sleep(random.uniform(0.5, 1.5) * RESTART_PAUSE)
                continue
            found = attested.found
            warning = ", TEST ONLY" if found.test_only else ""
            named = f"{found.kind}, measurement {found.measurement}{warning}"
            self.say(f"the aggregator at {self._address} is attested: {named}")
            path = self.workdir / "attested.crt"
            path.write_bytes(attested.certificate)
            return path
        return None

    def _handle(self, message: Message) -> RecordDict:
        with self.stay.round():
            return self.participant.handle(message)

    @property
    def _done(self) -> bool:
        return self.participant.outcome is not None or bool(self.stay.over)

    @property
    def _late(self) -> bool:
        return time.monotonic() - self._quiet_since > self.join_deadline


def _await_delivery(node: Process, replies: int) -> None:
    """Wait until the SuperNode has dealt with so many replies, or is late with them."""
    deadline = time.monotonic() + DELIVERY
    while node.said(DEALT_WITH) < replies and node.exit_status() is None and time.monotonic() < deadline:
        time.sleep(POLL)


def _result(participant: Participant) -> Model:
    assert participant.outcome is not None
    words = participant.outcome
    if words.status == SiteStatus.QUARANTINED:
        raise Quarantined(
            f"the aggregator quarantined this site: {foreign.words(words.reason)}. "
            "Ask its operator, who can read why in the ledger."
        )
    if words.status != SiteStatus.FINISHED:
        raise FederationError(
            f"the run failed at the aggregator: {foreign.words(words.reason)}. Ask its operator to start it "
            "again."
        )
    return participant.model()
