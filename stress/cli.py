"""The command line: parse, call, print. Exit codes: 0; 2 for a wrong config or input; 3 for a run that failed."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from stress import cli_manual, cli_rare, cli_report, cli_reverse, cli_shocks, cli_tail, cli_why
from stress.cli_options import Config, Device, Paths, Policies, Prices, Seed, Set, Store, collected, saved
from stress.spec import InputError, RunError

if TYPE_CHECKING:
    import xarray as xr


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
    from stress.config import load_config
    from stress.devices import choose
    from stress.digests import digest
    from stress.run import default_store, is_finished
    from stress.run import run as simulate
    from stress.suite import is_suite

    given = collected(paths, seed, overrides, policies, prices)
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
        picture = saved(comparison_picture(found), comparison_table.picture_of(runs, found), "The runs are safe.")
        typer.echo(f"picture  {picture}, .svg\n")


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
    from stress.config import load_config
    from stress.digests import digest
    from stress.suite import is_suite, read_suite

    given = collected(paths, seed, overrides, policies, prices)
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
def venues(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="TOML files of venues.", show_default=False)],
) -> None:
    """Print the rules of venues side by side, as a table in Markdown."""
    from stress.spec import read_toml
    from stress.spec import validate as validated
    from stress.venue_table import venue_table
    from stress.venues import Venue

    typer.echo(venue_table(validated(Venue, read_toml(file), str(file)) for file in files), nl=False)


@app.command()
def validate(
    prices: Prices = None,
    device: Device = "auto",
    file: Annotated[Path | None, typer.Option("--csv", help="File to write the table to.", show_default=False)] = None,
) -> None:
    """Set published figures of the model's defaults beside our own; with --prices, 19 May 2021 too."""
    from stress import console, reference

    if file is not None:
        file.touch()  # What cannot be written is said now, and not after minutes.
    with console.progress("cases") as report:
        rows = reference.table(prices=prices, device=device, progress=report)
    reference.print_table(rows, console.console())
    if file is not None:
        file.write_text(reference.to_csv(rows), encoding="utf-8")


@app.command()
def bench(
    full: Annotated[bool, typer.Option("--full", help="More paths, a whole day, more turns: minutes.")] = False,
    file: Annotated[Path | None, typer.Option("--json", help="File to write the rows to.", show_default=False)] = None,
    chip: Annotated[bool, typer.Option("--chip", help="Of a GPU: the kernel beside the plain program.")] = False,
    device: Device = "auto",
) -> None:
    """Time the step on this machine: path-steps a second, phases, the floor it sets, twins of the step, and a peer."""
    from stress import bench as measured
    from stress import bench_chip, bench_peer, console

    if file is not None:
        file.touch()  # What cannot be written is said now, and not after minutes.
    if chip:
        with console.progress("cases") as report:
            found = bench_chip.on_chip(device=device, progress=report)
        bench_chip.print_on_chip(found, console.console())
        if file is not None:
            file.write_text(measured.to_json(found), encoding="utf-8")
        return
    with console.progress("cases") as report:
        peers = bench_peer.peers(quick=not full, device=device)
        timed = measured.bench(quick=not full, device=device, progress=report)
    measured.print_table(timed, console.console())
    bench_peer.print_peers(peers, console.console())
    if file is not None:
        file.write_text(measured.to_json([*timed, *peers]), encoding="utf-8")


for commands in (cli_tail, cli_shocks, cli_why, cli_rare, cli_reverse, cli_report, cli_manual):
    commands.add_to(app)


def _picture(ds: xr.Dataset, store: Path, *, anew: bool) -> Path:
    """The picture beside a store, made where there is none; or anew."""
    stem = store.with_suffix("") if store.suffix == ".zarr" else store
    png, svg = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg"))
    if not anew and png.exists() and svg.exists():
        return png
    from stress.plots import overview

    return saved(overview(ds), png, f"The run is safe in {store}: mend that, then liqstress show {store}.")
