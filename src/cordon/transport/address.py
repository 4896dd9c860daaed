"""Addresses, HOST:PORT, as people give them."""

from __future__ import annotations

import re
from typing import Any

import click

from cordon import foreign
from cordon.errors import UserError

# A host's name, an IPv4 address, or an IPv6 address in brackets or not; nothing that a shell would act on.
ADDRESS_FORM = re.compile(
    r"(?:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)|\[?(?P<ipv6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?)\]?)"
    r":(?P<port>[0-9]{1,5})"
)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT; UserError where it is something else."""
    found = ADDRESS_FORM.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 65536:
        told = foreign.words(address)
        raise UserError(f"{told}: is no address. Give HOST:PORT, such as aggregator.example.org:9092.")
    return found["name"] or found["ipv6"], int(found["port"])


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
