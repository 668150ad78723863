"""The commands about rare events: `tilt` and `split`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stress.cli_options import Config, Device, Prices, Seed, Set, collected
from stress.spec import RunError

if TYPE_CHECKING:
    from stress.config import Run

Exhausts = Annotated[str | None, typer.Option(metavar="FUND", help="The event: this fund, VENUE/NAME, is exhausted.")]
Volume = Annotated[float | None, typer.Option(metavar="USD", help="Or: liquidations of an hour above this.")]


def add_to(app: typer.Typer) -> None:
    """Make them commands of an application."""
    app.command()(tilt)
    app.command()(split)


def tilt(
    config: Config,
    exhausts: Exhausts = None,
    volume: Volume = None,
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="NAME-tilt.toml")] = None,
    paths: Annotated[int, typer.Option(min=256, help="Paths of each turn.")] = 2048,
    turns: Annotated[int, typer.Option(min=2, max=50, help="Turns, at most.")] = 8,
    seed: Seed = None,
    overrides: Set = None,
    prices: Prices = None,
    device: Device = "auto",
) -> None:
    """Find, by a pilot run, how to draw paths so that a rare event is common: a file for --set sampling=FILE."""
    from stress import console, console_rare
    from stress.config import load_config
    from stress.pilot import event_of, pilot

    given = collected(None, seed, overrides, None, prices)
    given["overrides"]["sampling"] = None  # A pilot looks for another one.
    run = load_config(config, **given)
    event = event_of(run, exhausts, volume)
    _say_what_is_not_simulated(run)
    with console.progress("turns") as report:
        found = pilot(run, event, paths=paths, turns=turns, device=device, progress=report)
    console_rare.show_pilot(found, f"{run.name}: {event.text}")
    file = Path(f"{run.name}-tilt.toml") if out is None else out
    source = f"liqstress tilt, {event.text}: seed {run.seed}, {len(found.turns)} turns of {paths} paths"
    try:
        file.write_text(console_rare.tilts_as_toml(found.sampling, source), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{file}: cannot be written: {error.strerror}. Give another --out.") from error
    typer.echo(f"tilts    {file}\nrun      liqstress run {config} --set sampling={file}")


def split(
    config: Config,
    exhausts: Exhausts = None,
    volume: Volume = None,
    paths: Annotated[int, typer.Option(help="Paths, in all islands together.")] = 16384,
    islands: Annotated[int, typer.Option(help="Independent repetitions, by which the error is told.")] = 16,
    share: Annotated[
        float, typer.Option(min=0.02, max=0.5, help="Of the paths that are to come from a level to the next.")
    ] = 0.2,
    moves: Annotated[int, typer.Option(min=1, max=50, help="Of every path from a level.")] = 4,
    file: Annotated[Path | None, typer.Option("--csv", help="File for all figures.", show_default=False)] = None,
    seed: Seed = None,
    overrides: Set = None,
    prices: Prices = None,
    device: Device = "auto",
) -> None:
    """The chance of a rare event under any shock that is drawn, by multilevel splitting, level by level."""
    from stress import console, console_rare, split_run
    from stress.config import load_config
    from stress.pilot import event_of

    given = collected(None, seed, overrides, None, prices)
    given["overrides"]["sampling"] = None  # Splitting is another way to draw paths.
    run = load_config(config, **given)
    event = event_of(run, exhausts, volume)
    _say_what_is_not_simulated(run)
    with console.progress() as report:
        found = split_run.split(
            run, event, paths=paths, islands=islands, share=share, moves=moves, device=device, progress=report
        )
    words = [split_run.words(run, event, level) for level in found.levels]
    console_rare.show_split(found, words, f"{run.name}: {event.text}")
    if file is not None:
        console_rare.write_split(found, words, file)
        typer.echo(f"csv      {file}")


def _say_what_is_not_simulated(run: Run) -> None:
    if run.recovery_days:
        hours, days = run.horizon_hours, run.recovery_days
        typer.echo(f"The event is one of the {hours} h; the {days} days after them are left out.")
