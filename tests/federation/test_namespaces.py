"""Hospitals and aggregator in network namespaces of their own, with the firewalls that hospitals have."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from consortium import ROOT, Consortium, plan
from cordon.model import released as models

PORT = 9092
ROUNDS = 2
AGGREGATOR = "10.77.9.2"
HOSPITALS = {"north": "10.77.1.2", "south": "10.77.2.2"}
SEEDED = {
    "PYTHONPATH": os.pathsep.join(
        filter(None, (str(ROOT / "tests" / "doubles" / "seeded"), os.environ.get("PYTHONPATH")))
    ),
    "CORDON_TEST_SEED": "namespaces",
}
# Exit status 0 where a connection comes about, 1 where it does not.
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1.5).close()
except OSError:
    sys.exit(1)
"""

pytestmark = [pytest.mark.federation, pytest.mark.timeout(300)]


class Networks:
    """Network namespaces, each with its loopback and nothing else until they are joined."""

    def __init__(self) -> None:
        self._made: list[str] = []

    def add(self, *names: str) -> None:
        for name in names:
            run("ip", "netns", "add", self.full(name))
            self._made.append(name)
            self.run(name, "ip", "link", "set", "lo", "up")

    def full(self, name: str) -> str:
        return f"cordon-{os.getpid()}-{name}"

    def within(self, name: str) -> list[str]:
        return ["ip", "netns", "exec", self.full(name)]

    def run(self, name: str, *command: str) -> str:
        return run(*self.within(name), *command)

    def join(self, name: str, address: str, router: str) -> None:
        """Connect ``name``, which gets ``address``, to ``router``, which gets the network's first one."""
        gateway = address.rpartition(".")[0] + ".1"
        link, far = f"v{os.getpid() % 10**6}{name[0]}", f"w{os.getpid() % 10**6}{name[0]}"
        run("ip", "link", "add", link, "netns", self.full(name), "type", "veth", "peer", far,
            "netns", self.full(router))  # fmt: skip
        for place, end, own in ((name, link, address), (router, far, gateway)):
            self.run(place, "ip", "address", "add", f"{own}/24", "dev", end)
            self.run(place, "ip", "link", "set", end, "up")
        self.run(name, "ip", "route", "add", "default", "via", gateway)

    def reaches(self, name: str, address: str, port: int) -> bool:
        command = [*self.within(name), sys.executable, "-c", CONNECT, address, str(port)]
        return subprocess.run(command).returncode == 0

    def listening(self, name: str) -> dict[int, str]:
        """The TCP ports that something in ``name`` listens on, and where."""
        rows = [row.split() for row in self.run(name, "ss", "--listening", "--tcp", "--numeric").splitlines()]
        ends = [row[3].rpartition(":") for row in rows[1:]]
        return {int(port): host for host, _, port in ends}

    def remove(self) -> None:
        for name in self._made:
            run("ip", "netns", "del", self.full(name))


def run(*command: str) -> str:
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@pytest.fixture
def networks() -> Iterator[Networks]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for tool, package in (("ip", "iproute2"), ("ss", "iproute2"), ("iptables", "iptables")):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on this machine (package {package})")
    made = Networks()
    try:
        try:
            made.add("internet")
            made.run("internet", "iptables", "--policy", "FORWARD", "DROP")
            made.run("internet", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        except AssertionError as error:
            pytest.skip(f"no network namespaces with a firewall here ({error})")
        yield made
    finally:
        made.remove()


def firewalled(networks: Networks, *hospitals: str) -> None:
    """Between the hospitals and the aggregator: connections to its one port, and the answers on them."""
    networks.add(*hospitals, "aggregator")
    networks.join("aggregator", AGGREGATOR, "internet")
    allow = ["iptables", "--append", "FORWARD", "--jump", "ACCEPT", "--protocol", "tcp"]
    for hospital in hospitals:
        own = HOSPITALS[hospital]
        networks.join(hospital, own, "internet")
        out = ["--source", own, "--destination", AGGREGATOR, "--dport", str(PORT)]
        back = ["--source", AGGREGATOR, "--destination", own, "--sport", str(PORT), "!", "--syn"]
        networks.run("internet", *allow, *out)
        networks.run("internet", *allow, *back)


# Seconds for a first round, in which sites that agreed on no plan beforehand check their code.
CHECKED = 180.0


def consortium(folder: Path) -> Consortium:
    folder.mkdir()
    return Consortium(folder, list(HOSPITALS), "", listen=AGGREGATOR, address=AGGREGATOR, port=PORT)


def wait_for(log: Path, words: str) -> None:
    deadline = time.monotonic() + 120
    while not (log.exists() and re.search(words, log.read_text())):
        assert time.monotonic() < deadline, f"{log}: no {words!r}\n{log.read_text() if log.exists() else ''}"
        time.sleep(0.2)


def finished(two: Consortium, rounds: int = ROUNDS) -> models.Model:
    """The model that all have, once every update of every round was taken."""
    log = two.folder / "work" / "log"
    assert two.finish("aggregator", timeout=200) == 0, log.read_text()
    assert [two.finish(site) for site in HOSPITALS] == [0, 0]
    record = json.loads((two.folder / "work" / "federation.json").read_text())
    decisions = [[site["decision"] for site in entry["sites"]] for entry in record["rounds"]]
    assert decisions == [["accepted"] * len(HOSPITALS)] * rounds
    model = models.load(two.folder / "work" / "model.safetensors")
    for site in HOSPITALS:
        assert models.load(two.folder / site / "model.safetensors").hash == model.hash
    return model


def test_hospitals_that_can_only_go_out_train_and_nothing_comes_in(networks, tmp_path):
    rounds = 30  # still under way when every port has been tried
    firewalled(networks, *HOSPITALS)
    two = consortium(tmp_path / "run")
    try:
        two.start_aggregator(plan(rounds), within=networks.within("aggregator"))
        for site in HOSPITALS:
            two.start(site, within=networks.within(site))
        wait_for(tmp_path / "run" / "work" / "log", f"round 1 of {rounds}")

        assert networks.reaches("north", AGGREGATOR, PORT)
        found = {site: networks.listening(site) for site in HOSPITALS}
        for site, ports in found.items():
            assert ports, site
            # The router is inside the firewall: even there nobody is let in.
            assert set(ports.values()) == {"127.0.0.1"}
            for port in ports:
                for outside in {"internet", "aggregator", *HOSPITALS} - {site}:
                    assert not networks.reaches(outside, HOSPITALS[site], port), (outside, site, port)
        inner = {port for port in networks.listening("aggregator") if port != PORT}
        assert inner
        for port in inner | {22, PORT + 1}:
            assert not networks.reaches("north", AGGREGATOR, port), port
        # So far nothing listened at these addresses; a hospital that did is not reached all the same.
        open_port = subprocess.Popen(
            [*networks.within("south"), sys.executable, "-m", "http.server", "8765", "--bind", "0.0.0.0"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 20
            while not networks.reaches("south", HOSPITALS["south"], 8765):
                assert time.monotonic() < deadline
            for outside in ("north", "aggregator"):
                assert not networks.reaches(outside, HOSPITALS["south"], 8765)
        finally:
            open_port.terminate()
            open_port.wait()
        assert f"round {rounds} of" not in (tmp_path / "run" / "work" / "log").read_text()
        finished(two, rounds)
    finally:
        two.stop()


def test_hospitals_without_any_network_get_the_same_model_through_files(networks, tmp_path):
    """Over TLS first, then through folders by relays; both under one seed, which makes their noise equal."""
    firewalled(networks, *HOSPITALS)
    direct = consortium(tmp_path / "tls")
    try:
        direct.start_aggregator(
            plan(ROUNDS), within=networks.within("aggregator"), environment=SEEDED, round_deadline=CHECKED
        )
        for site in HOSPITALS:
            direct.start(site, within=networks.within(site), environment=SEEDED)
        over_tls = finished(direct)
    finally:
        direct.stop()

    networks.add("closed-north", "closed-south")
    files = consortium(tmp_path / "files")
    relays = []
    try:
        files.start_aggregator(
            plan(ROUNDS), within=networks.within("aggregator"), environment=SEEDED, round_deadline=CHECKED
        )
        for site in HOSPITALS:
            shared = tmp_path / f"shared-{site}"
            command = [sys.executable, "-m", "cordon.cli", "relay", str(shared), "--aggregator"]
            with (tmp_path / f"relay-{site}.log").open("w") as log:
                # Where the hospital was before: with a way to the aggregator and to nothing else.
                relays.append(
                    subprocess.Popen(
                        [*networks.within(site), *command, files.address], stdout=log, stderr=log
                    )
                )
            files.start(site, within=networks.within(f"closed-{site}"), transport=shared, environment=SEEDED)
        wait_for(tmp_path / "files" / "work" / "log", f"round 1 of {ROUNDS}")
        for site in HOSPITALS:
            assert not networks.reaches(f"closed-{site}", AGGREGATOR, PORT)
            assert not networks.reaches(f"closed-{site}", HOSPITALS[site], PORT)
            links = json.loads(networks.run(f"closed-{site}", "ip", "-json", "link"))
            assert [link["ifname"] for link in links] == ["lo"]
        through_files = finished(files)
    finally:
        files.stop()
        for relay in relays:
            relay.terminate()
            assert relay.wait(timeout=20) == 0

    assert through_files.hash == over_tls.hash
    for name, value in over_tls.parameters.items():
        assert (through_files.parameters[name] == value).all()
    for site in HOSPITALS:
        assert "NOTHING IS PRIVATE" in files.log(site)
        assert "1 of 2: trained" in files.log(site)
        assert "session" in (tmp_path / f"relay-{site}.log").read_text()
