#!/usr/bin/env python3
"""What the gate adds to a SuperNode's calls, against calls to the SuperLink itself, in one run.

    python benchmarks/gate.py --calls 300 --clients 8

A real SuperLink with an enrolled key, through its gate and past it, turn by turn. The large call is
an object of 5 MiB, the largest piece that Flower makes of an array; the SuperLink refuses it, for
there is no run, once it has read it.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient

from cordon.federation.credentials import enrol
from cordon.federation.flower import processes
from cordon.federation.flower.bound_auth import BoundAuth
from cordon.federation.gate.start import gated_superlink
from cordon.federation.plan import Site, read_enrolment

OBJECT = 5 * 2**20


def supernode(address: str, certificate: Path, key: ec.EllipticCurvePrivateKey) -> FleetHttpClient:
    """A SuperNode's client, as flower-supernode makes it."""
    return FleetHttpClient.from_server_address(
        address, False, certificate.read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            BoundAuth(key, key.public_key(), roots=str(certificate)),
        ],
    )  # fmt: skip


def pull(client: FleetHttpClient, node: Node) -> None:
    """The call with which a SuperNode asks for messages."""
    client.PullMessages(PullMessagesRequest(node=node))


def push(client: FleetHttpClient, node: Node) -> None:
    """An object of 5 MiB."""
    try:
        client.PushObject(
            PushObjectRequest(node=node, run_id=1, object_id="a" * 64, object_content=bytes(OBJECT))
        )
    except httpx.HTTPStatusError as error:
        if error.response.status_code in {401, 413}:
            raise


def seconds_each(call: Callable[[], None], calls: int) -> list[float]:
    """How long each of ``calls`` calls took, one after the other."""
    taken = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return taken


@click.command()
@click.option("--calls", default=300, show_default=True)
@click.option("--clients", default=8, show_default=True, help="SuperNodes at once, for the rate.")
@click.option("--json", "as_json", is_flag=True)
def main(calls: int, clients: int, as_json: bool) -> None:
    """Print milliseconds a call and calls a second, past the gate and through it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        enrol([Site("north", 6, 1.0)], None, state=folder / "keys", outdir=folder)
        port, enrolment = processes.free_port(), folder / "aggregator" / "enrolment.json"
        keys = [site.public_key for site in read_enrolment(enrolment)]
        with gated_superlink(
            folder / "aggregator", "127.0.0.1", port, folder, enrolment=enrolment, keys=keys
        ) as link:
            key = load_ssh_private_key((folder / "sites" / "north" / "site.key").read_bytes(), None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            ways = {
                "SuperLink": (link.address, folder / "superlink.crt"),
                "gate": (f"127.0.0.1:{port}", folder / "gate.crt"),
            }
            result = measured(ways, key, calls, clients)
    if as_json:
        click.echo(json.dumps(result))
        return
    for way, figures in result.items():
        click.echo(f"{way}: " + ", ".join(f"{name} {value:.1f}" for name, value in figures.items()))


def measured(
    ways: dict[str, tuple[str, Path]], key: ec.EllipticCurvePrivateKey, calls: int, clients: int
) -> dict[str, dict[str, float]]:
    """The figures of every way, measured in turns so that both meet the same machine."""
    open_clients = {way: [supernode(*there, key) for _ in range(clients)] for way, there in ways.items()}
    first = next(iter(open_clients.values()))[0]
    activation = ActivateNodeRequest(public_key=public_key_to_bytes(key.public_key()), heartbeat_interval=60)
    node = Node(node_id=first.ActivateNode(activation).node_id)
    small: dict[str, list[float]] = {way: [] for way in ways}
    large: dict[str, list[float]] = {way: [] for way in ways}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(5):
        for way, several in open_clients.items():
            one = several[0]
            seconds_each(lambda one=one: pull(one, node), 5)  # type: ignore[misc]
            small[way] += seconds_each(lambda one=one: pull(one, node), calls // 5)  # type: ignore[misc]
            large[way] += seconds_each(lambda one=one: push(one, node), max(calls // 50, 1))  # type: ignore[misc]
            began = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                for client in several:
                    pool.submit(seconds_each, lambda client=client: pull(client, node), calls // 5)  # type: ignore[misc]
            rates[way].append(clients * (calls // 5) / (time.perf_counter() - began))
    for several in open_clients.values():
        for client in several:
            client.close()
    return {
        way: {
            "ms a call": 1000 * statistics.median(small[way]),
            "ms an object of 5 MiB": 1000 * statistics.median(large[way]),
            f"calls/s of {clients}": statistics.median(rates[way]),
        }
        for way in ways
    }


if __name__ == "__main__":
    main()
