"""Tests of `cordon attest`."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from attestation_lab import (
    MRENCLAVE,
    REAL,
    authority,
    evidence_of,
    firmware,
    identity,
    needs_real,
    real_chain,
    send,
    serving,
    virtee,
)
from cordon.attestation.certificates import fingerprint
from cordon.attestation.emulator import Emulator
from cordon.attestation.policy import Policy
from cordon.cli import main

SNP, INTEL = REAL / "sev_snp", REAL / "intel"


def attest(*words: object) -> Result:
    return CliRunner().invoke(main, ["attest", *map(str, words)], catch_exceptions=False)


@pytest.fixture
def milan(tmp_path: Path) -> Path:
    """A policy made from the real report."""
    run = attest("policy", "--from-report", SNP / "report_milan.hex", "--product", "milan")
    assert run.exit_code == 0
    path = tmp_path / "milan.toml"
    path.write_text(run.stdout)
    return path


@needs_real
def test_a_real_report_is_verified(tmp_path: Path, milan: Path) -> None:
    binary, ders = tmp_path / "report.bin", tmp_path / "chain.der"
    binary.write_bytes(virtee().report)
    ders.write_bytes(b"".join(reversed(real_chain())))
    carried = virtee().report[0x50:0x90].hex()
    for report in (SNP / "report_milan.hex", binary):
        for chain in (("--chain", SNP / "cert_chain_milan"), ("--chain", ders), (),
                      ("--chain", SNP / "milan_ark.pem", "--chain", SNP / "milan_ask.pem")):  # fmt: skip
            words = ("verify", "--report", report, "--vcek", SNP / "vcek_milan.der", *chain)
            run = attest(*words, "--policy", milan, "--report-data", carried, "--json")
            assert run.exit_code == 0, run.output
            assert json.loads(run.stdout)["tcb"] == {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}


@needs_real
def test_without_a_policy_it_says_what_that_means() -> None:
    run = attest("verify", "--report", SNP / "report_milan.hex", "--vcek", SNP / "vcek_milan.der")
    assert run.exit_code == 0
    assert "measurement: 7a1e5c26" in run.stdout
    assert "nothing says that the guest is the one you want" in run.stdout
    assert run.stdout.endswith("\ngenuine\n")
    assert "verified" not in run.stdout
    run = attest("verify", "--report", SNP / "report_milan.hex", "--vcek", SNP / "vcek_milan.der", "--json")
    found = json.loads(run.stdout)
    assert (found["genuine"], found["verified"]) == (True, False)


@needs_real
def test_a_real_quote_of_a_cloud_is_genuine_without_a_policy() -> None:
    words = ("verify", "--quote", INTEL / "tdx_quote", "--collateral", INTEL / "tdx_quote_collateral.json",
             "--at", "2025-06-20")  # fmt: skip
    run = attest(*words)
    assert run.exit_code == 0, run.output
    assert "platform info: dynamic_platform, cached_keys, smt" in run.stdout
    assert run.stdout.endswith("\ngenuine\n")


def test_a_guest_that_may_be_debugged_is_not_called_genuine_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = authority()
    # The emulator's root stands in for AMD's: no real report of such a guest is at hand.
    monkeypatch.setattr("cordon.attestation.verify.amd_roots", lambda: {fingerprint(root.ark): "test"})
    evidence = Emulator(root, debug=True).collect(bytes(64))
    report, chain = tmp_path / "report", [tmp_path / name for name in ("vcek", "ask", "ark")]
    report.write_bytes(evidence.report)
    for path, der in zip(chain, evidence.certificates, strict=True):
        path.write_bytes(der)
    words = ("verify", "--report", report, "--vcek", chain[0], "--chain", chain[1], "--chain", chain[2])
    run = attest(*words, "--json")
    assert run.exit_code == 7
    assert json.loads(run.stdout)["verified"] is False
    assert "the guest may be debugged" in run.stderr
    run = attest(*words, "--allow_debug")
    assert run.exit_code == 0
    assert "note: the guest may be debugged" in run.stdout
    assert run.stdout.endswith("\ngenuine\n")
    policy = Emulator(root).write_policy(tmp_path / "policy.toml")
    run = attest(*words, "--policy", policy, "--allow_debug")
    assert run.exit_code == 2
    assert "which says it itself" in run.stderr


@needs_real
def test_a_certificate_in_pem_brings_no_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    vcek = tmp_path / "vcek.pem"
    vcek.write_text(ssl.DER_cert_to_PEM_cert((SNP / "vcek_milan.der").read_bytes()))
    assert attest("verify", "--report", SNP / "report_milan.hex", "--vcek", vcek).exit_code == 0
    assert [str(item.message) for item in recwarn] == []


@needs_real
def test_a_refusal_has_its_exit_status_and_reason(milan: Path) -> None:
    words = (
        "verify",
        "--report",
        SNP / "report_milan.hex",
        "--vcek",
        SNP / "vcek_milan.der",
        "--policy",
        milan,
    )
    run = attest(*words, "--report-data", "00" * 64, "--json")
    assert run.exit_code == 7
    assert json.loads(run.stdout)["verified"] is False
    assert "not about this connection" in run.stderr
    run = attest("verify", "--report", SNP / "report_milan.hex", "--vcek", SNP / "trustee_milan_vcek.der")
    assert run.exit_code == 7
    assert "chip id" in run.stderr
    run = attest(*words, "--at", "2031-01-01")
    assert run.exit_code == 7
    assert "the VCEK is valid from" in run.stderr


@needs_real
def test_a_real_quote_is_verified_at_its_time(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    statuses = '["UpToDate", "ConfigurationAndSWHardeningNeeded"]'
    policy.write_text(f'[intel]\nmrenclave = ["{MRENCLAVE.hex()}"]\ntcb_statuses = {statuses}\n')
    words = ("verify", "--quote", INTEL / "sgx_quote", "--collateral", INTEL / "sgx_quote_collateral.json",
             "--policy", policy)  # fmt: skip
    run = attest(*words, "--at", "2025-06-20")
    assert run.exit_code == 0, run.output
    assert "tcb status: ConfigurationAndSWHardeningNeeded" in run.stdout
    assert attest(*words).exit_code == 7


@pytest.mark.parametrize(
    "words",
    [
        (), ("--report", __file__), ("--report", __file__, "--vcek", __file__, "--quote", __file__),
        ("--quote", __file__), ("--report", __file__, "--vcek", __file__, "--report-data", "12"),
    ],
)  # fmt: skip
def test_an_incomplete_call_is_refused(words: tuple[str, ...]) -> None:
    assert attest("verify", *words).exit_code == 2


def test_files_that_are_no_evidence_are_refused(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(300_000))
    assert "so it is no evidence" in attest("verify", "--quote", big, "--collateral", __file__).stderr
    run = attest("verify", "--report", __file__, "--vcek", __file__)
    assert run.exit_code == 7
    assert "neither PEM nor DER" in run.stderr
    assert attest("verify", "--quote", __file__, "--collateral", __file__).exit_code == 7


def test_a_policy_pins_a_computed_measurement(tmp_path: Path) -> None:
    ovmf = firmware(tmp_path / "OVMF.fd")
    run = attest("policy", "--ovmf", ovmf, "--vcpus", 2, "--json")
    held = json.loads(run.stdout)
    (tmp_path / "policy.toml").write_text(held["policy"])
    policy = Policy.read(tmp_path / "policy.toml").sev_snp
    assert policy is not None
    assert [item.hex() for item in policy.measurements] == [held["computed_measurement"]]
    assert attest("policy", "--append", "quiet").exit_code == 2


def test_evidence_is_fetched_and_verified(tmp_path: Path) -> None:
    emulator, held = Emulator(authority()), identity(tmp_path / "tls.pem")
    policy = emulator.write_policy(tmp_path / "policy.toml")
    with serving(held, lambda handler, nonce: send(handler, evidence_of(emulator, held, nonce))) as address:
        written = tmp_path / "aggregator.pem"
        run = attest("evidence", "--address", address, "--policy", policy, "--certificate", written)
        assert run.exit_code == 0, run.output
        assert written.read_bytes() == held.pem
        assert "note: TEST ONLY" in run.stdout
        policy.write_text(policy.read_text().replace("snp = 22", "snp = 23"))
        written.unlink()
        run = attest("evidence", "--address", address, "--policy", policy, "--certificate", written, "--json")
        assert run.exit_code == 7
        assert "snp 22 < 23" in json.loads(run.stdout)["problem"]
        assert not written.exists()
    run = attest("evidence", "--address", address, "--policy", policy, "--timeout", 2)
    assert run.exit_code == 6


@pytest.mark.stress
def test_cordon_starts_without_what_attestation_needs() -> None:
    code = "import sys, cordon.cli; print({'cryptography', 'dcap_qvl', 'sevsnpmeasure'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
