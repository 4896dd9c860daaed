"""Tests of cordon.transport.address: what is no address is named before anything else is done."""

import pytest
from click.testing import CliRunner

from bin_commands import command_of
from cordon.cli import main
from cordon.errors import UserError
from cordon.transport.address import split_address

WRONG = ["localhost", "localhost:99999", "localhost:0", ":9092", "a:b", "a:٣"]


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("aggregator.example.org:9092", ("aggregator.example.org", 9092)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443)), ("127.0.0.1:65535", ("127.0.0.1", 65535)),
    ],
)  # fmt: skip
def test_an_address_is_a_host_and_a_port(address, parts):
    assert split_address(address) == parts


@pytest.mark.parametrize("address", WRONG)
def test_what_is_none_is_named_by_every_command(address, tmp_path):
    with pytest.raises(UserError, match=r"is no address\. Give HOST:PORT"):
        split_address(address)
    commands = [
        (command_of("aggregate"), "--address"), (command_of("train_site"), "--address"),
        (main, "relay", str(tmp_path), "--aggregator"), (main, "attest", "evidence", "--address"),
    ]  # fmt: skip
    for command, *words in commands:
        result = CliRunner().invoke(command, [*words, address])
        assert result.exit_code == 2
        assert f"{address}: is no address. Give HOST:PORT" in result.output
