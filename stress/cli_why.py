"""Commands that say why: `map`, `amplify` and `explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stress.cli_options import Cell, Config, Device, Paths, Prices, Seed, Set, beside, load, saved
from stress.spec import InputError


def add_to(app: typer.Typer) -> None:
    """Make them commands of an application."""
    app.command("map")(price_levels)
    app.command()(amplify)
    app.command()(explain)


def price_levels(
    config: Config,
    block: Annotated[float, typer.Option(help="Size of the block of reproduction numbers [USD].")] = 10e6,
    depth: Annotated[float, typer.Option(help="How many times thinner than usual the block finds the books.")] = 1.0,
    file: Annotated[Path | None, typer.Option("--csv", help="File for every level.", show_default=False)] = None,
    picture: Annotated[Path | None, typer.Option(help="PNG to draw; an SVG beside it.", show_default=False)] = None,
    overrides: Set = None,
    prices: Prices = None,
    device: Device = "auto",
) -> None:
    """What is closed at every price level before any path, and what a block of orders triggers there."""
    from stress import printed
    from stress.levels import Levels

    if not 0 < block < float("inf"):
        raise InputError(f"--block is {block:g}, expected a number above 0. Give the size of an order in USD, as 1e7.")
    if not 1 <= depth < float("inf"):
        raise InputError(f"--depth is {depth:g}, expected a number of at least 1. Leave it out for the usual depth.")
    levels = Levels(load(config, None, None, overrides, prices), device=device)
    closed, number = levels.liquidation_map(), levels.reproduction_number(block_usd=block, depth=depth)
    printed.print_levels(closed, number)
    if file is not None:
        printed.write_levels(closed, number, file)
    if picture is not None:
        from stress.plots_levels import levels_picture

        picture = saved(levels_picture(closed, number), picture)
    printed.print_files(csv=file, picture=picture)


def amplify(
    config: Config,
    paths: Paths = None,
    seed: Seed = None,
    device: Device = "auto",
    overrides: Set = None,
    prices: Prices = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with unfinished or damaged stores.")] = False,
) -> None:
    """How much more is liquidated because forced orders move prices: a run against its twin without impact."""
    from stress import console, printed
    from stress.amplify import run_both, twin_of
    from stress.plots_twins import amplification_picture
    from stress.run import default_store
    from stress.twins import compare

    spec = load(config, paths, seed, overrides, prices)
    twin_of(spec)  # Refused before the bar is drawn.
    with console.progress() as report:
        ds, twin = run_both(spec, device=device, resume=resume, progress=report)
    printed.print_amplification(compare(ds, twin), spec.name)
    store = default_store(spec)
    picture = saved(amplification_picture(ds, twin), store.with_name(f"{store.stem}-amplification.png"))
    printed.print_files(store=store, picture=picture)


def explain(
    store: Cell,
    path: Annotated[
        str, typer.Option(help="A number; worst: with the largest hour; fund: where funds fall most.")
    ] = "worst",
    venue: Annotated[str | None, typer.Option(help="Volumes of this venue alone.", show_default="all")] = None,
    asset: Annotated[str | None, typer.Option(help="Volumes of this asset alone.", show_default="all")] = None,
    file: Annotated[Path | None, typer.Option("--csv", help="File for every step.", show_default=False)] = None,
    device: Device = "auto",
) -> None:
    """What happened on one path of a finished run, minute by minute, computed again from its seed."""
    from stress import printed
    from stress.drilldown import explain as explained
    from stress.plots_path import path_picture
    from stress.suite_run import run_or_cell
    from stress.timeline import refuse_unknown, timeline

    refuse_unknown(run_or_cell(store), venue, asset)
    steps = explained(store, path, device=device)
    of = timeline(steps, venue, asset)
    printed.print_path(steps, of, venue, asset)
    if file is not None:
        printed.write_path(of, file)
    picture = saved(path_picture(steps, venue, asset), beside(store, f"path-{steps.attrs['path']}", venue, asset))
    printed.print_files(csv=file, picture=picture)
