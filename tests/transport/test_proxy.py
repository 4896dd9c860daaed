"""Outgoing connections through the proxy that the environment names, and calls on loopback past it."""

from __future__ import annotations

import base64

import pytest

from consortium import Consortium, plan
from cordon.attestation import client
from cordon.attestation.emulator import Emulator
from cordon.attestation.policy import Policy
from cordon.errors import Unreachable, UserError
from cordon.federation.flower import processes
from cordon.federation.flower.tasks import without_proxy
from cordon.model import released as models
from cordon.transport.proxy import Proxy
from proxy_lab import GIVEN, PASSWORD, USER, ConnectProxy

VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_the_environment_says_which_hosts_go_through_which_proxy(monkeypatch):
    assert Proxy.of_environment("aggregator.example.org") is None
    monkeypatch.setenv("ALL_PROXY", "all.example.org:8080")
    monkeypatch.setenv("HTTP_PROXY", "http://plain.example.org:1")
    monkeypatch.setenv("NO_PROXY", "example.com,10.0.0.1")
    found = Proxy.of_environment("aggregator.example.org")
    assert found is not None
    assert (found.host, found.port, found.headers) == ("all.example.org", 8080, {})
    monkeypatch.setenv("https_proxy", f"http://{GIVEN}@proxy.example.org:3128/")
    found = Proxy.of_environment("aggregator.example.org")
    assert found is not None
    assert (found.host, found.port) == ("proxy.example.org", 3128)
    words = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert found.headers == {"Proxy-Authorization": f"Basic {words}"}
    assert "word" not in repr(found)
    for direct in ("example.com", "aggregator.example.com", "10.0.0.1", "127.0.0.1", "localhost", "::1"):
        assert Proxy.of_environment(direct) is None, direct


@pytest.mark.parametrize(
    "url", ["socks5://u:secret@proxy:1080", "https://u:secret@proxy", "http://u:secret@:x"]
)
def test_another_kind_of_proxy_is_refused_without_telling_its_password(url, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", url)
    with pytest.raises(UserError, match="HTTPS_PROXY names") as caught:
        Proxy.of_environment("aggregator.example.org")
    assert "secret" not in str(caught.value)


def test_flowers_processes_get_the_one_proxy_that_was_chosen(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.setenv(name, "http://other:1")
        monkeypatch.setenv(name.lower(), "http://other:1")
    proxies = {name for name in processes.environment(tmp_path) if "proxy" in name.lower()}
    assert proxies == set()
    chosen = processes.environment(tmp_path, Proxy.at("http://u:p@chosen:2"))
    assert {name: chosen[name] for name in chosen if "proxy" in name.lower()} == {
        "HTTPS_PROXY": "http://u:p@chosen:2"
    }


def test_clients_of_this_machine_itself_see_no_proxy(monkeypatch):
    import httpx

    monkeypatch.setenv("ALL_PROXY", "socks5://nowhere:1")  # httpx refuses it when a client is made
    monkeypatch.setenv("http_proxy", "http://nowhere:1")
    with without_proxy(), httpx.Client() as made:
        assert not made._mounts
    with pytest.raises(ImportError):
        httpx.Client()


@pytest.mark.stress
def test_evidence_is_fetched_with_the_proxys_credentials_and_not_without(tmp_path, monkeypatch):
    policy = Policy.read(Emulator.at(tmp_path / "machine").write_policy(tmp_path / "policy.toml"))
    proxy = ConnectProxy(f"{USER}:{PASSWORD}")
    with proxy.running() as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(Unreachable, match="407"):
            client.fetch("aggregator.invalid:9092", policy)
        assert proxy.refused == {"aggregator.invalid:9092": 1}
        monkeypatch.setenv("HTTPS_PROXY", f"http://{GIVEN}@127.0.0.1:{port}")
        with pytest.raises(Unreachable):
            client.fetch("aggregator.invalid:9092", policy)
        assert proxy.asked == {"aggregator.invalid:9092": 1}


@pytest.mark.federation
@pytest.mark.timeout(240)
@pytest.mark.parametrize("attested", [False, True], ids=["pinned", "attested"])
def test_sites_train_through_a_proxy_and_call_their_own_machine_past_it(attested, tmp_path, monkeypatch):
    """The proxy alone knows where the aggregator is, so nothing reaches it otherwise."""
    machine = Emulator.at(tmp_path / "machine")
    policy = machine.write_policy(tmp_path / "policy.toml") if attested else None
    credentials = f"{USER}:{PASSWORD}" if attested else ""
    proxy = ConnectProxy(credentials)
    two = Consortium(tmp_path, ["north", "south"], None if attested else "", address="aggregator.test")
    proxy.known["aggregator.test"] = two.host
    try:
        with proxy.running() as port:
            url = f"http://{GIVEN + '@' if attested else ''}127.0.0.1:{port}"
            environment = {"HTTPS_PROXY": url, "HTTP_PROXY": url, "ALL_PROXY": "socks5://127.0.0.1:1"}
            for name, value in environment.items():
                monkeypatch.setenv(name, value)  # the aggregator's own calls, too
            for site in ("north", "south"):
                two.start(site, policy=policy)
            model, _ = two.aggregate(plan(2), evidence=f"emulator:{tmp_path / 'machine'}" if attested else "")
            assert [two.finish(site) for site in ("north", "south")] == [0, 0]
    finally:
        two.stop()
    assert set(proxy.asked) == {two.address}
    assert proxy.asked.total() >= 2
    assert not proxy.refused
    assert proxy.moved > 10_000
    assert models.load(two.folder / "north" / "model.safetensors").hash == model.hash
