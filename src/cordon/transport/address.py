"""Addresses, HOST:PORT, as people give them."""

from __future__ import annotations

from typing import Any

import click

from cordon.errors import UserError


def split_address(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT; UserError where it is something else."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"{address}: is no address. Give HOST:PORT, such as aggregator.example.org:9092.")
    return host, int(port)


class Address(click.ParamType):  # type: ignore[type-arg]  # it has none before click 8.5
    """An option's HOST:PORT, checked before anything else is done; its value stays as it was given."""

    name = "address"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        try:
            split_address(str(value))
        except UserError as error:
            self.fail(str(error), parameter, context)
        return str(value)


ADDRESS = Address()
