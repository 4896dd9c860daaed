"""`cordon --help` as a tour: the commands in the order in which people meet them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from cordon.console.commands import Facts, Group, command

WIDEST = 100


class Tour(Group):
    """A group whose help lists its commands under headings; ``stations``: heading, then names in order."""

    group_class = Group

    def __init__(self, *arguments: Any, stations: Mapping[str, Sequence[str]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.stations = stations
        self.context_settings.setdefault("max_content_width", WIDEST)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The stations' commands in their order, and after them what stands in none."""
        named = [name for names in self.stations.values() for name in names]
        return [*named, *(name for name in self.commands if name not in named)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, names in self.stations.items():
            room = formatter.width - 6 - max(map(len, names))
            with formatter.section(heading):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(room)) for name in names])


@command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> Facts:
    """Print what completes `cordon` in SHELL.

    \b
    In ~/.bashrc:                   eval "$(cordon completion bash)"
    In ~/.zshrc, after compinit:    eval "$(cordon completion zsh)"
    In ~/.config/fish/config.fish:  cordon completion fish | source
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "cordon", "_CORDON_COMPLETE").source()
    return Facts({"shell": shell, "script": script}, [script])
