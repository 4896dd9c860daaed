"""`cordon --help` shows every command once, whole, and shells complete them."""

import os
import subprocess
import sys

import pytest
from click.shell_completion import get_completion_class
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


@pytest.mark.stress
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("led", "ledger"),
        ("ledger ver", "verify"),
        ("ledger verify --he", "--head --help"),
        ("attest policy --product mi", "milan"),
        ("completion z", "zsh"),
    ],
)
def test_bash_completes_with_it(words, completed):
    script = (
        f'eval "$(cordon completion bash)"; COMP_WORDS=(cordon {words}); COMP_CWORD={len(words.split())}; '
        '_cordon_completion cordon; echo "${COMPREPLY[@]}"'
    )
    found = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    run = subprocess.run(["bash", "-c", script], env=found, text=True, capture_output=True)
    assert run.stdout.strip() == completed, run.stderr


def completions(words, begun):
    """Kind and value of what a shell is offered behind ``words``."""
    shell = get_completion_class("bash")(main, {}, "cordon", "_CORDON_COMPLETE")
    return [(item.type, item.value) for item in shell.get_completions(words.split(), begun)]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("ledger verify", "file"),
        ("ledger show --key", "file"),
        ("ledger export a.sqlite --output", "file"),
        ("pretrain", "file"),
        ("audit --model", "file"),
        ("attest evidence --policy", "file"),
        ("doctor --reference", "file"),
        ("doctor --state_dir", "dir"),
        ("aggregator list --state", "dir"),
        ("relay", "dir"),
    ],
)
def test_shells_complete_files_where_files_are_wanted(words, kind):
    assert completions(words, "a") == [(kind, "a")]
