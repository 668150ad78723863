"""The page of commands and their options, from the application itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from stress.manual.markdown import anchor, code, heading, named, one_line, table

_BRACES = re.compile(r"\{(.*?)(?:\.\.\.)?\}")
"""Around an argument that must be given; dots within it stand behind it again."""


def commands_page(application: Any) -> str:
    """Every command with its arguments and options.

    Args:
        application: The group of commands that typer makes of `stress.cli.app`.
    """
    parts = [
        "# Commands\n",
        "`liqstress COMMAND --help` says the same. Exit codes: 0; 2 for a config or an input that is wrong; 3 for a "
        "run that failed; 130 where it was interrupted.\n",
    ]
    return "\n".join(parts + [_command(name, command) for name, command in sorted(members(application).items())])


def members(application: Any) -> Mapping[str, Any]:
    """The commands of an application, by name."""
    return {name: command for name, command in application.commands.items() if not command.hidden}


def _command(name: str, command: Any) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    pieces = [_BRACES.sub(r"\1", piece) for piece in command.collect_usage_pieces(context)]
    usage = " ".join(["liqstress", name, *pieces])
    rows = [_parameter(name, parameter, context) for parameter in command.params]
    return "\n".join([
        heading(2, code(f"liqstress {name}"), anchor("command", name)),
        f"    {usage}\n",
        one_line(command.help or "") + "\n",
        table(("option", "what"), rows) if rows else "",
    ])  # fmt: skip


def _parameter(command: str, parameter: Any, context: Any) -> tuple[str, str]:
    """As `--help` has it: name and value, and what it does."""
    shown, what = parameter.get_help_record(context)
    return named(shown, anchor("option", command, parameter.opts[0])), what
