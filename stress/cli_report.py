"""The command `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Make it a command of an application."""
    app.command()(report)


def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Stores of finished runs, the base first; STORE#SCENARIO/POLICY; or one "
                       "suite.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.", show_default=False)],
    language: Annotated[str, typer.Option(help="en, nl, or one whose texts stand in the folder of templates.")] = "en",
    templates: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Templates and texts put over ours.", show_default=False)
    ] = None,
    logo: Annotated[Path | None, typer.Option(metavar="FILE", help="Picture for the head.", show_default=False)] = None,
    frontier: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Frontier of a reverse stress test.", show_default=False)
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(metavar="CSV", help="What `validate --csv` wrote.", show_default=False)
    ] = None,
    fit: Annotated[
        Path | None, typer.Option(metavar="TOML", help="What `fit-shocks` printed of its shock.", show_default=False)
    ] = None,
    likeness: Annotated[
        Path | None, typer.Option(metavar="JSON", help="What `compare-shock --json` wrote.", show_default=False)
    ] = None,
    cover: Annotated[
        bool, typer.Option("--cover", help="Cover-1 and cover-2 of a synthetic population too.")
    ] = False,
) -> None:  # fmt: skip
    """Write finished runs up for a committee or a supervisor: HTML, PDF, and all numbers as CSV and JSON."""
    import atexit
    import gc

    # What is made lives to the end: to look for garbage in it, here and at the exit, takes a seventh of the time.
    gc.disable()
    atexit.register(gc.freeze)
    try:
        from stress.report.make import report as write

        written = write(
            *runs, out=out, language=language, templates=templates, logo=logo, frontier=frontier,
            validation=validation, fit=fit, likeness=likeness, cover=cover,
        )  # fmt: skip
    finally:
        gc.enable()
    for file in written:
        typer.echo(str(file))
