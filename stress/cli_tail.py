"""Commands about tails: `tail`, `funds` and `cover`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from stress.cli_options import Cell, Config, Prices, Set, beside, load, saved
from stress.spec import InputError

Levels = Annotated[str, typer.Option(metavar="PER CENT", help="Levels, separated by commas.")]


def add_to(app: typer.Typer) -> None:
    """Make them commands of an application."""
    for command in (tail, funds, cover):
        app.command()(command)


def tail(
    store: Cell,
    variable: Annotated[
        Literal["hour", "day", "drawdown"],
        typer.Option(help="Largest hour or 24 hours of liquidations of a run, or largest fall of a fund."),
    ] = "hour",
    pool: Annotated[str | None, typer.Option(help="Fund, as VENUE/NAME, for drawdown.", show_default=False)] = None,
    threshold: Annotated[
        float | None, typer.Option(metavar="USD", help="Where the tail begins.", show_default="the lowest that fits")
    ] = None,
    levels: Levels = "99,99.9,99.97",
) -> None:
    """Fit the tail of a finished run: quantiles beyond its paths, with intervals and the thresholds compared."""
    from stress import console_tail
    from stress.plots_tail import tail_figure
    from stress.suite_run import run_or_cell
    from stress.tail import tail as fit

    ds = run_or_cell(store)
    found = fit(ds, variable, pool=pool, threshold=threshold, levels=shares(levels))
    picture = saved(tail_figure(found, ds.attrs["name"]), beside(store, "tail", variable, pool))
    console_tail.show_tail(found, ds.attrs["name"], picture)


def funds(store: Cell, levels: Levels = "99,99.9,99.97") -> None:
    """Say how large the insurance funds of a finished run would have to be, and how far that can be relied on."""
    from stress import console_tail
    from stress.fund_size import fund_sizes
    from stress.suite_run import run_or_cell

    ds = run_or_cell(store)
    console_tail.show_funds(fund_sizes(ds, shares(levels)), ds.attrs["name"], ds.sizes["path"])


def cover(
    config: Config,
    move: Annotated[
        list[str] | None,
        typer.Option(metavar="ASSET=SHARE", help="Move of an index, such as BTC=-0.2; any number of times."),
    ] = None,
    worst_of: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Moves of a finished run's worst path.", show_default=False)
    ] = None,
    n: Annotated[int, typer.Option("--n", help="How many accounts default.")] = 2,
    overrides: Set = None,
    prices: Prices = None,
) -> None:
    """Set each insurance fund against the default of its N largest accounts under a move of prices."""
    from stress import console_tail
    from stress.cover import cover as covered
    from stress.cover import left_out, worst_moves
    from stress.suite_run import run_or_cell

    moves = {} if worst_of is None else worst_moves(run_or_cell(worst_of))
    moves |= dict(_move(text) for text in move or ())
    run = load(config, None, None, overrides, prices)
    console_tail.show_cover(covered(run, moves, n), moves, n, left_out(run))


def shares(levels: str) -> list[float]:
    """Levels of a command line, in per cent, as shares."""
    try:
        found = [float(part) / 100 for part in levels.split(",")]
    except ValueError:
        found = [0.0]
    if not all(0.5 < level < 1 for level in found):
        raise InputError(
            f"levels is {levels!r}, expected per cents above 50 and below 100, such as 99,99.9. Correct it."
        )
    return sorted(round(level, 12) for level in found)


def _move(text: str) -> tuple[str, float]:
    """`BTC=-0.2`."""
    asset, _, share = text.partition("=")
    try:
        return asset.strip(), float(share)
    except ValueError:
        raise InputError(f"move is {text!r}, expected ASSET=SHARE, such as BTC=-0.2. Write it so.") from None
