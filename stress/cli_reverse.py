"""The command `reverse`: which shock breaks a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from stress.cli_options import Config, Device, Prices, Seed, Set, collected, saved
from stress.spec import InputError


def add_to(app: typer.Typer) -> None:
    """Make it a command of an application."""
    app.command()(reverse)


def reverse(
    config: Config,
    exhausts: Annotated[
        str | None, typer.Option(metavar="VENUE/NAME", help="Fund that is to run out of money.", show_default=False)
    ] = None,
    adl: Annotated[str | None, typer.Option(help="Venue at which ADL is to start.", show_default=False)] = None,
    volume: Annotated[
        float | None, typer.Option(metavar="USD", help="Liquidations of an hour to be reached.", show_default=False)
    ] = None,
    minutes: Annotated[float, typer.Option(help="How long the move takes.")] = 15,
    within: Annotated[float, typer.Option(help="Largest fall of an index that is tried.")] = 0.6,
    depth: Annotated[float, typer.Option(help="How many times thinner than usual all books are.")] = 1.0,
    fund: Annotated[float, typer.Option(help="Money of all insurance funds, over what it is.")] = 1.0,
    concentration: Annotated[
        float | None,
        typer.Option(help="Share of the longs of every market that one account has.", show_default="the config's"),
    ] = None,
    against: Annotated[
        Literal["depth", "fund", "concentration"] | None,
        typer.Option(help="Lever to find the shock for several values of.", show_default=False),
    ] = None,
    values: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Values of that lever, separated by commas.")
    ] = "1,2,4,8",
    under: Annotated[
        Path | None, typer.Option(help="Shock by whose likelihood moves are judged.", show_default="the config's")
    ] = None,
    shock: Annotated[Path | None, typer.Option(help="File for the move, as a shock.", show_default=False)] = None,
    file: Annotated[Path | None, typer.Option("--csv", help="File for all figures.", show_default=False)] = None,
    picture: Annotated[
        Path | None, typer.Option(help="PNG of the frontier; an SVG beside it.", show_default=False)
    ] = None,
    seed: Seed = None,
    overrides: Set = None,
    prices: Prices = None,
    device: Device = "auto",
) -> None:
    """Find the most plausible shock that exhausts a fund, starts ADL, or reaches a volume; and how often it comes."""
    from stress import console, printed, printed_reverse
    from stress.config import load_config
    from stress.reverse import Reverse
    from stress.reverse_target import Levers, words_of
    from stress.scenarios import read_shock

    if against is None and picture is not None:
        raise InputError("--picture shows a frontier, expected --against with it. Give that, or leave it out.")
    if against is not None and shock is not None:
        raise InputError("--shock writes one move, expected no --against with it. Leave one of the two out.")
    given = collected(None, seed, overrides, None, prices)
    given["overrides"]["sampling"] = None  # No path of the run is drawn.
    run = load_config(config, **given)
    model = None if under is None else read_shock(under)
    test = Reverse(run, minutes=minutes, within=within, under=model, device=device)
    target = test.target(exhausts, adl, volume)
    levers = Levers(depth, fund, run.portfolio.concentration if concentration is None else concentration)
    if against is None:
        found = test.find(target, levers)
        printed_reverse.print_reverse(found, run.name)
        told = {levers.depth: found}
        if shock is not None:
            printed_reverse.write_shock(found, shock)
    else:
        with console.progress("values") as report:
            told = test.frontier(target, against, _numbers(values), levers, progress=report)
        printed_reverse.print_frontier(told, run.name, against)
    if file is not None:
        printed_reverse.write_reverse(told, against or "depth", file)
    if picture is not None:
        from stress.plots_reverse import frontier_picture

        picture = saved(frontier_picture(told, run.name, str(against), words_of(target)), picture)
    printed.print_files(csv=file, shock=shock, picture=picture)


def _numbers(values: str) -> list[float]:
    try:
        found = sorted({float(part) for part in values.split(",")})
    except ValueError:
        raise InputError(
            f"--values is {values!r}, expected numbers separated by commas, such as 1,2,4,8. Correct it."
        ) from None
    return found
