"""`cordon --help` shows every command once, whole, and shells complete them."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from cordon.cli import main


def test_help_shows_every_command_once_and_cuts_no_words():
    lines = CliRunner().invoke(main, ["--help"], terminal_width=80).output.splitlines()
    for name in main.commands:
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert line.endswith(".")
        assert not line.endswith("...")
    assert sorted(main.list_commands(None)) == sorted(main.commands)
    assert sorted(name for names in main.stations.values() for name in names) == sorted(main.commands)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_completion(shell):
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert f"_CORDON_COMPLETE={shell}_complete" in result.output


def test_bash_completes_with_it():
    script = (
        'eval "$(cordon completion bash)"; COMP_WORDS=(cordon led); COMP_CWORD=1; '
        '_cordon_completion cordon; echo "${COMPREPLY[@]}"'
    )
    found = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    run = subprocess.run(["bash", "-c", script], env=found, text=True, capture_output=True)
    assert run.stdout.strip() == "ledger", run.stderr
