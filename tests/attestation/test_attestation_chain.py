"""Tests of cordon.attestation.certificates on chains that are signed, but not as AMD signs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from attestation_lab import REPORT_DATA, authority, policy_of
from cordon.attestation import emulator as emulation
from cordon.attestation.emulator import PSS, Authority, Emulator
from cordon.attestation.evidence import Evidence
from cordon.attestation.verify import verify
from cordon.errors import AttestationError


def refused(root: Authority, leaf: x509.Certificate | None = None, test_only: bool = True) -> str:
    emulator = Emulator(root)
    chain = (leaf or emulator.leaf(), root.ask, root.ark)
    report = Emulator(root, key=emulator.key, hardware_id=emulator.hardware_id).report(REPORT_DATA)
    evidence = Evidence("sev-snp", report, tuple(item.public_bytes(Encoding.DER) for item in chain))
    with pytest.raises(AttestationError) as caught:
        verify(evidence, replace(policy_of(root), test_only=test_only), report_data=None)
    return str(caught.value)


def signing_key(
    ca: bool | None = True, sign: bool = True, pss: padding.PSS = PSS, key: rsa.RSAPrivateKey | None = None
) -> Authority:
    """The Milan authority with another ASK certificate."""
    root = authority()
    key = key or root.ask_key
    builder = emulation._builder(root.ask.subject, root.ark.subject, key.public_key())
    if ca is not None:
        usage = x509.KeyUsage(True, False, False, False, False, sign, False, False, False)
        builder = builder.add_extension(usage, critical=True)
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    return replace(root, ask=builder.sign(root.ark_key, hashes.SHA384(), rsa_padding=pss), ask_key=key)


def test_the_helper_makes_a_chain_that_is_accepted() -> None:
    root = signing_key()
    verify(Emulator(root).collect(REPORT_DATA), policy_of(root), report_data=REPORT_DATA)


def test_a_signing_key_must_be_allowed_to_sign() -> None:
    assert "may not sign certificates" in refused(signing_key(ca=False, sign=False))
    assert "may not sign certificates" in refused(signing_key(sign=False))
    assert "does not say what its key is for" in refused(signing_key(ca=None))


def test_signatures_must_be_of_amds_algorithm() -> None:
    short = padding.PSS(padding.MGF1(hashes.SHA384()), 32)
    other = padding.PSS(padding.MGF1(hashes.SHA256()), 48)
    for pss in (short, other):
        assert "the ASK is not signed by RSA-PSS with SHA-384" in refused(signing_key(pss=pss))


def test_keys_must_have_4096_bits() -> None:
    small = rsa.generate_private_key(65537, 2048)
    assert "the key that signs the VCEK is not RSA of 4096 bits" in refused(signing_key(key=small))


def test_a_vcek_must_be_of_its_roots_product() -> None:
    leaf = Emulator(replace(authority(), product="genoa")).leaf()
    assert "the VCEK is for the product 'Genoa', its root for milan" in refused(authority(), leaf)


def test_a_vcek_must_name_each_part_of_its_tcb(monkeypatch: pytest.MonkeyPatch) -> None:
    root = authority()
    good = Emulator(root).leaf
    assert good().extensions
    monkeypatch.setattr(emulation, "_integer", lambda value: bytes((2, 2, 0, value)))  # not minimal DER
    assert "is no security version" in refused(root, good())
    monkeypatch.setattr(emulation, "_integer", lambda value: b"")
    assert "is no security version" in refused(root, good())


@pytest.mark.stress
def test_a_policy_for_tests_accepts_a_tests_root_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "TEST_ONLY", "private")
    private = Authority.make()
    assert "is not a test's" in refused(private)


def test_other_names_are_refused() -> None:
    root = authority()
    swapped = replace(root, ask=root.ark, ask_key=root.ark_key)
    assert "'ARK-Milan' is no signing key of milan" in refused(swapped)
    assert "'ARK-Milan' is not SEV-VCEK" in refused(root, root.ark)
