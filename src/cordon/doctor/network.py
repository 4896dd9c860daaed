"""The way to the aggregator: proxy, TLS, attestation, and whether the two clocks agree."""

from __future__ import annotations

import email.utils
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from cordon import foreign
from cordon.doctor.finding import Finding, failed, ok, warning
from cordon.errors import AttestationError, Unreachable, UserError
from cordon.transport.address import split_address
from cordon.transport.proxy import Proxy

CONNECT_TIMEOUT = 30.0
# What a clock may be off (seconds) before it is worth a word: ahead, behind. An answer tells whole seconds.
AHEAD, BEHIND = 2.0, 60.0


def aggregator(address: str, *, policy: Path | None, authority: Path | None) -> Iterator[Finding]:
    """Findings on the way to ``address`` (HOST:PORT), from here and now.

    Whom to trust is said by a ``policy`` or by the certificate of an ``authority``; by neither, nothing is
    asked of the aggregator.
    """
    try:
        host, _ = split_address(address)
        proxy = Proxy.of_environment(host)
    except UserError as error:
        yield failed("aggregator", str(error), "Correct it.")
        return
    yield ok("proxy", f"by {proxy.host}:{proxy.port}" if proxy else "none: connections go straight out")
    if policy is not None:
        finding, certificate = _attested(address, policy, proxy)
        yield finding
    elif authority is not None:
        certificate = authority.read_text()
    else:
        yield failed("aggregator", "not asked", "Say whom to trust: --aggregator_policy, or --aggregator_ca.")
        return
    if certificate:
        yield from _healthy(address, certificate, proxy)


def _attested(address: str, policy: Path, proxy: Proxy | None) -> tuple[Finding, str]:
    from cordon.attestation.client import fetch
    from cordon.attestation.policy import Policy

    try:
        attested = fetch(address, Policy.read(policy), proxy=proxy, timeout=CONNECT_TIMEOUT)
    except Unreachable as error:
        remedy = "Ask for the port to be opened outwards, set HTTPS_PROXY, or use --transport files."
        return failed("attestation", str(error), remedy), ""
    except AttestationError as error:
        return failed("attestation", str(error), "Send nothing. Ask the aggregator's operator."), ""
    except UserError as error:
        return failed("attestation", str(error), "Correct the policy."), ""
    found, certificate = attested.found, attested.certificate.decode()
    said = f"{found.kind}, measurement {found.measurement}"
    if found.test_only:
        return warning(
            "attestation", f"{said}, TEST ONLY", "Ask for a policy that allows no emulator."
        ), certificate
    return ok("attestation", said), certificate


def _healthy(address: str, certificate: str, proxy: Proxy | None) -> Iterator[Finding]:
    try:
        trusting = ssl.create_default_context(cadata=certificate)
        with httpx.Client(
            verify=trusting, trust_env=False, timeout=CONNECT_TIMEOUT, proxy=proxy.url if proxy else None
        ) as client:
            answer = client.get(f"https://{address}/health")
        here = time.time()
        answer.raise_for_status()
    except (httpx.HTTPError, ssl.SSLError) as error:
        remedy = (
            "Check the address, that its port is open outwards, HTTPS_PROXY, and whose certificate this is."
        )
        yield failed("aggregator", f"{address}: {foreign.words(error)}", remedy)
        return
    yield ok("aggregator", f"{address}: answers")
    said = answer.headers.get("date")
    if said is None:
        yield warning("clock", "the aggregator does not tell the time", "Keep this machine's clock by NTP.")
        return
    yield _clock(here - email.utils.parsedate_to_datetime(said).timestamp())


def _clock(ahead: float) -> Finding:
    """A SuperNode signs the time; what the aggregator finds too old, or from the future, it refuses."""
    from cordon.federation.flower.signatures import clock_tolerance

    found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the aggregator's"
    remedy = "Set the clock by NTP: what is signed at another time is refused."
    most_ahead, most_behind = clock_tolerance()
    if ahead > most_ahead + 1 or -ahead > most_behind:
        return failed("clock", found, remedy)
    if ahead > AHEAD or -ahead > BEHIND:
        return warning("clock", found, remedy)
    return ok("clock", "agrees with the aggregator's")
