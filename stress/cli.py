"""The command line: parse, call, print. Exit codes: 0; 2 for a wrong config or input; 3 for a run that failed."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
import typer.core

from stress import cli_tail
from stress.spec import InputError, RunError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from stress.config import Run

_WRONG, _FAILED, _INTERRUPTED = 2, 3, 130


class _Commands(typer.core.TyperGroup):
    """Turns what a person can mend into one line and an exit code; anything else keeps its traceback."""

    def invoke(self, ctx: typer.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            message, code = str(error), _WRONG
        except RunError as error:
            message, code = str(error), _FAILED
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            message, code = f"{error.filename}: {error.strerror}. Mend that and try again.", _FAILED
        except KeyboardInterrupt:
            message, code = "interrupted. Finished chunks of paths are safe: go on with --resume.", _INTERRUPTED
        for line in message.splitlines():
            typer.echo(f"liqstress: {line}", err=True)
        raise typer.Exit(code)


app = typer.Typer(
    cls=_Commands, help="Stress tests for leveraged crypto markets: liquidations, insurance funds, deleveraging.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
)  # fmt: skip

Config = Annotated[Path, typer.Argument(help="TOML file of the run.", show_default=False)]
Store = Annotated[Path, typer.Argument(metavar="RUN", help="Store of a finished run.", show_default=False)]
Paths = Annotated[int | None, typer.Option(help="Number of paths instead of the config's.")]
Seed = Annotated[int | None, typer.Option(help="Seed instead of the config's.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Another value, such as impact.rho=0.3; any number of times."),
]
Policies = Annotated[
    list[Path] | None,
    typer.Option("--policy", metavar="FILE", help="Policy to put over the config; any number of times."),
]
Prices = Annotated[Path | None, typer.Option(help="Folder of price files instead of the config's.")]
Assets = Annotated[str, typer.Option(help="Assets, separated by commas; the first leads.")]
Until = Annotated[str | None, typer.Option(metavar="DATE", help="Last day used.", show_default="all")]
Device = Annotated[
    Literal["auto", "cpu", "gpu"], typer.Option(help="Where to compute; auto takes a GPU where there is one.")
]


@app.command()
def run(
    config: Config,
    out: Annotated[Path | None, typer.Option(help="Store to write.", show_default="runs/NAME-HASH.zarr")] = None,
    paths: Paths = None,
    seed: Seed = None,
    device: Device = "auto",
    overrides: Set = None,
    policies: Policies = None,
    prices: Prices = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished or damaged store.")] = False,
) -> None:
    """Simulate a run or a suite, keep it, print its figures. One that is there already is shown again."""
    from stress import console
    from stress.config import digest, load_config
    from stress.devices import choose
    from stress.run import default_store, is_finished
    from stress.run import run as simulate
    from stress.suite import is_suite

    given = _given(paths, seed, overrides, policies, prices)
    if is_suite(config):
        return _run_suite(config, given, out, device, resume=resume)
    spec = load_config(config, **given)
    store = default_store(spec) if out is None else out
    again = is_finished(store, digest(spec)) and not resume
    if again:
        typer.echo(f"{store} holds this run already: shown again.", err=True)
        ds = simulate(spec, store)
    else:
        typer.echo(f"device {device}: {choose(device).name}", err=True)
        with console.progress() as report:
            ds = simulate(spec, store, device=device, resume=resume, progress=report)
    return console.show_run(ds, store, _picture(ds, store, anew=not again))


def _run_suite(config: Path, given: dict[str, Any], out: Path | None, device: Device, *, resume: bool) -> None:
    """As `run`, of a suite."""
    from stress import console
    from stress.devices import choose
    from stress.suite import read_suite
    from stress.suite_run import run_suite, suite_store
    from stress.suite_table import show_suite

    plan = read_suite(config, **given)
    store = suite_store(plan) if out is None else out
    typer.echo(f"device {device}: {choose(device).name}", err=True)
    with console.progress() as report:
        ds = run_suite(plan, store, device=device, resume=resume, progress=report)
    show_suite(ds, store)


@app.command()
def show(store: Store) -> None:
    """Print the figures of a finished run or suite again."""
    from stress import console
    from stress.run import open_sound

    ds = open_sound(store)
    if ds.attrs.get("kind") == "suite":
        from stress.suite_table import show_suite

        return show_suite(ds, store)
    return console.show_run(ds, store, _picture(ds, store, anew=False))


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Stores, the base first; STORE#SCENARIO/POLICY; or one suite.",
                       show_default=False),
    ],
) -> None:  # fmt: skip
    """Compare policies on the same paths with the first: paired differences, and who pays in each."""
    from stress import comparison_table, console
    from stress.comparison_plot import comparison_picture

    for found in comparison_table.comparisons(runs):
        comparison_table.print_comparison(found, console.console())
        picture = _saved(comparison_picture(found), comparison_table.picture_of(runs, found), "the runs are safe")
        typer.echo(f"picture  {picture}, .svg\n")


cli_tail.add_to(app)


@app.command()
def check(
    config: Config,
    paths: Paths = None,
    seed: Seed = None,
    overrides: Set = None,
    policies: Policies = None,
    prices: Prices = None,
) -> None:
    """Check a config and every row it names without running; print it with all defaults, as TOML."""
    from stress import console
    from stress.build import build
    from stress.config import digest, load_config
    from stress.suite import is_suite, read_suite

    given = _given(paths, seed, overrides, policies, prices)
    if is_suite(config):
        for cell in read_suite(config, **given).runs.values():
            typer.echo(console.facts_of(build(cell), cell)[0])
        return
    spec = load_config(config, **given)
    digest(spec)
    for line in console.facts_of(build(spec), spec):
        typer.echo(f"# {line}")
    typer.echo(console.as_toml(spec.model_dump(mode="json")), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON schema of a run's TOML file, for editors."""
    from stress.schema import schema as whole

    typer.echo(json.dumps(whole(), indent=2))


@app.command()
def venues(files: Annotated[list[Path], typer.Argument(help="TOML files of venues.", show_default=False)]) -> None:
    """Print the rules of venues side by side, as a table in Markdown."""
    from stress.spec import read_toml
    from stress.spec import validate as validated
    from stress.venue_table import venue_table
    from stress.venues import Venue

    typer.echo(venue_table(validated(Venue, read_toml(file), str(file)) for file in files), nl=False)


@app.command()
def validate(prices: Prices = None, device: Device = "auto") -> None:
    """Set published figures of the model's defaults beside our own; with --prices, 19 May 2021 too."""
    from stress import console, reference

    with console.progress("cases") as report:
        rows = reference.table(prices=prices, device=device, progress=report)
    reference.print_table(rows, console.console())


@app.command()
def bench(
    full: Annotated[bool, typer.Option("--full", help="More paths, a whole day, more turns: minutes.")] = False,
    file: Annotated[Path | None, typer.Option("--json", help="File to write the rows to.", show_default=False)] = None,
    device: Device = "auto",
) -> None:
    """Time the step on this machine: path-steps a second, phases, the floor it sets, twins of the step, and a peer."""
    from stress import bench as measured
    from stress import bench_peer, console

    if file is not None:
        file.touch()  # What cannot be written is said now, and not after minutes.
    with console.progress("cases") as report:
        peers = bench_peer.peers(quick=not full, device=device)
        timed = measured.bench(quick=not full, device=device, progress=report)
    measured.print_table(timed, console.console())
    bench_peer.print_peers(peers, console.console())
    if file is not None:
        file.write_text(measured.to_json([*timed, *peers]), encoding="utf-8")


@app.command()
def fit_shocks(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="A folder of hourly prices, any of minute prices.", show_default=False),
    ],
    assets: Assets = "BTC,ETH,SOL,XRP,DOGE",
    until: Until = None,
    kind: Annotated[
        Literal["gbm", "merton", "kou", "bates", "student_t", "garch", "block_bootstrap"],
        typer.Option(help="Shock to fit."),
    ] = "merton",
    level: Annotated[
        float | None, typer.Option(help="Total daily volatility of the first asset to scale all returns to.")
    ] = None,
) -> None:
    """Fit a shock to price files; print it as TOML, with standard errors."""
    from stress.fitted import fit_shocks as fit
    from stress.fitted import to_toml

    shock, report = fit(folders, assets.split(","), kind, until, level)
    made = ["liqstress fit-shocks", *map(str, folders)]
    made += ["--until", until] if until else []
    made += ["--assets", assets]
    made += ["--kind", kind] if kind != "merton" else []
    made += ["--level", f"{level:g}"] if level is not None else []
    typer.echo(to_toml(shock, " ".join(made), report), nl=False)


@app.command()
def compare_shock(
    shock: Annotated[Path, typer.Argument(help="TOML file of the shock.", show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of hourly prices.", show_default=False)],
    assets: Assets = "BTC,ETH,SOL,XRP,DOGE",
    until: Until = None,
    paths: Annotated[int, typer.Option(help="Number of paths, of two days each.")] = 4096,
    file: Annotated[Path | None, typer.Option("--json", help="File to write it to.", show_default=False)] = None,
) -> None:
    """Set moments, tails, joint moves and memory of a shock beside those of recorded hours."""
    from stress import likeness
    from stress.fits.sample import hourly_returns
    from stress.fitted import read_prices
    from stress.scenarios import read_shock

    names = assets.split(",")
    returns, period, _ = hourly_returns(read_prices([folder], names, until)[0])
    recorded = likeness.recorded_features(returns)
    drawn = likeness.features(likeness.simulated_returns(read_shock(shock), names, (folder, {}), paths))
    for line in likeness.table(recorded, drawn, names):
        typer.echo(line)
    if file is not None:
        source = f"liqstress compare-shock {shock} {folder}; {period}"
        file.write_text(likeness.as_json(recorded, drawn, names, source), encoding="utf-8")


@app.command("map")
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
    levels = Levels(_load(config, None, None, overrides, prices), device=device)
    closed, number = levels.liquidation_map(), levels.reproduction_number(block_usd=block, depth=depth)
    printed.print_levels(closed, number)
    if file is not None:
        printed.write_levels(closed, number, file)
    if picture is not None:
        from stress.plots_levels import levels_picture

        picture = _drawn(lambda: levels_picture(closed, number), picture)
    printed.print_files(csv=file, picture=picture)


@app.command()
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

    spec = _load(config, paths, seed, overrides, prices)
    twin_of(spec)  # Refused before the bar is drawn.
    with console.progress() as report:
        ds, twin = run_both(spec, device=device, resume=resume, progress=report)
    printed.print_amplification(compare(ds, twin), spec.name)
    store = default_store(spec)
    picture = _drawn(lambda: amplification_picture(ds, twin), store.with_name(f"{store.stem}-amplification.png"))
    printed.print_files(store=store, picture=picture)


@app.command()
def explain(
    store: Store,
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
    from stress.results import open_run
    from stress.timeline import refuse_unknown, timeline

    refuse_unknown(open_run(store), venue, asset)
    steps = explained(store, path, device=device)
    of = timeline(steps, venue, asset)
    printed.print_path(steps, of, venue, asset)
    if file is not None:
        printed.write_path(of, file)
    stem = store.with_suffix("") if store.suffix == ".zarr" else store
    name = "-".join([stem.name, f"path-{steps.attrs['path']}", *(x for x in (venue, asset) if x is not None)])
    picture = _drawn(lambda: path_picture(steps, venue, asset), stem.with_name(f"{name}.png"))
    printed.print_files(csv=file, picture=picture)


def _drawn(figure: Callable[[], Figure], file: Path) -> Path:
    """A picture in its files; the PNG's name."""
    from stress.drawing import save

    try:
        return save(figure(), file)[0]
    except OSError as error:
        raise RunError(f"{file}: cannot be written: {error.strerror}. Give another place, or mend this one.") from error


def _load(config: Path, paths: int | None, seed: int | None, overrides: list[str] | None, prices: Path | None) -> Run:
    """The config of a command line."""
    from stress.config import load_config

    return load_config(config, **_given(paths, seed, overrides, None, prices))


def _given(
    paths: int | None, seed: int | None, overrides: list[str] | None, policies: list[Path] | None, prices: Path | None
) -> dict[str, Any]:
    """What a command line says beside the config."""
    from stress.config import parse_override
    from stress.policies import read_policy

    values = dict(parse_override(text) for text in overrides or ())
    read = [read_policy(file) for file in policies or ()]
    return {"paths": paths, "seed": seed, "prices": prices, "policies": read, "overrides": values}


def _picture(ds: xr.Dataset, store: Path, *, anew: bool) -> Path:
    """The picture beside a store, made where there is none; or anew."""
    stem = store.with_suffix("") if store.suffix == ".zarr" else store
    png, svg = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg"))
    if not anew and png.exists() and svg.exists():
        return png
    from stress.plots import overview

    return _saved(overview(ds), png, f"the run is safe in {store}: mend that, then liqstress show {store}")


def _saved(figure: Any, png: Path, safe: str) -> Path:
    """A picture as PNG and SVG."""
    from stress.plots import save

    try:
        save(figure, png)
    except OSError as error:
        for written in (png, png.with_suffix(".svg")):
            written.unlink(missing_ok=True)
        raise RunError(f"{png}: cannot be written: {error.strerror}. {safe[0].upper()}{safe[1:]}.") from error
    return png
