"""The command `manual`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Make it a command of an application."""
    app.command()(manual)


def manual(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("manual"),
) -> None:
    """Write the manual as HTML: the model, config keys, commands, variables, Python, a glossary."""
    from stress.manual.site import build

    warnings = build(out, context.find_root().command)
    typer.echo(warnings, err=True, nl=False)
    typer.echo(f"manual   {out / 'index.html'}")
