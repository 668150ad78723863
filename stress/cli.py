"""The command line: parse, call, print. Exit codes: 0; 2 for a wrong config or input; 3 for a run that failed."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
import typer.core

from stress.spec import InputError, RunError

if TYPE_CHECKING:
    import xarray as xr

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
Paths = Annotated[int | None, typer.Option(help="Number of paths instead of the config's.")]
Seed = Annotated[int | None, typer.Option(help="Seed instead of the config's.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Another value, such as impact.rho=0.3; any number of times."),
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
    prices: Prices = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished or damaged store.")] = False,
) -> None:
    """Simulate a run, keep it with its picture, print its figures. A run that is there already is shown again."""
    from stress import console
    from stress.config import digest
    from stress.devices import choose
    from stress.run import default_store, is_finished
    from stress.run import run as simulate

    spec = _load(config, paths, seed, overrides, prices)
    store = default_store(spec) if out is None else out
    again = is_finished(store, digest(spec)) and not resume
    if again:
        typer.echo(f"{store} holds this run already: shown again.", err=True)
        ds = simulate(spec, store)
    else:
        typer.echo(f"device {device}: {choose(device).name}", err=True)
        with console.progress() as report:
            ds = simulate(spec, store, device=device, resume=resume, progress=report)
    console.show_run(ds, store, _picture(ds, store, anew=not again))


@app.command()
def show(
    store: Annotated[Path, typer.Argument(metavar="RUN", help="Store of a finished run.", show_default=False)],
) -> None:
    """Print the figures of a finished run again."""
    from stress import console
    from stress.run import open_sound

    ds = open_sound(store)
    console.show_run(ds, store, _picture(ds, store, anew=False))


@app.command()
def check(config: Config, paths: Paths = None, seed: Seed = None, overrides: Set = None, prices: Prices = None) -> None:
    """Check a config and every row it names without running; print it with all defaults, as TOML."""
    from stress import console
    from stress.build import build
    from stress.config import digest

    spec = _load(config, paths, seed, overrides, prices)
    digest(spec)
    for line in console.facts_of(build(spec), spec):
        typer.echo(f"# {line}")
    typer.echo(console.as_toml(spec.model_dump(mode="json")), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON schema of a run's TOML file, for editors."""
    from stress.config import schema as whole

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


def _load(config: Path, paths: int | None, seed: int | None, overrides: list[str] | None, prices: Path | None) -> Run:
    """The config of a command line."""
    from stress.config import load_config, parse_override

    given = dict(parse_override(text) for text in overrides or ())
    return load_config(config, paths=paths, seed=seed, prices=prices, overrides=given)


def _picture(ds: xr.Dataset, store: Path, *, anew: bool) -> Path:
    """The picture beside a store, made where there is none; or anew."""
    stem = store.with_suffix("") if store.suffix == ".zarr" else store
    png, svg = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg"))
    if not anew and png.exists() and svg.exists():
        return png
    from stress.plots import overview, save

    try:
        save(overview(ds), png)
    except OSError as error:
        png.unlink(missing_ok=True)
        svg.unlink(missing_ok=True)
        raise RunError(
            f"{png}: cannot be written: {error.strerror}. The run is safe in {store}: mend that, then "
            f"liqstress show {store}."
        ) from error
    return png
