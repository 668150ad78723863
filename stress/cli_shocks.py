"""Commands about shocks: `fit-shocks` and `compare-shock`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Assets = Annotated[str, typer.Option(help="Assets, separated by commas; the first leads.")]
Files = Annotated[
    list[str] | None,
    typer.Option("--file", metavar="ASSET=FILE", help="Its file, where a folder has several; any number of times."),
]
Until = Annotated[str | None, typer.Option(metavar="DATE", help="Last day used.", show_default="all")]


def add_to(app: typer.Typer) -> None:
    """Make them commands of an application."""
    for command in (fit_shocks, compare_shock):
        app.command()(command)


def fit_shocks(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="A folder of hourly prices, any of minute prices.", show_default=False),
    ],
    assets: Assets = "BTC,ETH,SOL,XRP,DOGE",
    until: Until = None,
    file: Files = None,
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

    shock, report = fit(folders, _names(assets), kind, until, level, _files(file))
    made = ["liqstress fit-shocks", *map(str, folders)]
    made += ["--until", until] if until else []
    made += ["--assets", assets]
    made += [part for given in file or () for part in ("--file", given)]
    made += ["--kind", kind] if kind != "merton" else []
    made += ["--level", f"{level:g}"] if level is not None else []
    typer.echo(to_toml(shock, " ".join(made), report), nl=False)


def compare_shock(
    shock: Annotated[Path, typer.Argument(metavar="SHOCK", help="TOML file of the shock.", show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of hourly prices.", show_default=False)],
    assets: Assets = "BTC,ETH,SOL,XRP,DOGE",
    until: Until = None,
    file: Files = None,
    paths: Annotated[int, typer.Option(min=100, help="Number of paths, of two days each.")] = 4096,
    kept: Annotated[Path | None, typer.Option("--json", help="File to write it to.", show_default=False)] = None,
) -> None:
    """Set moments, tails, joint moves and memory of a shock beside those of recorded hours."""
    from stress import likeness
    from stress.fits.sample import hourly_returns
    from stress.fitted import read_prices
    from stress.scenarios import read_shock

    names, files = _names(assets), _files(file)
    returns, period, _ = hourly_returns(read_prices([folder], names, until, files)[0])
    recorded = likeness.recorded_features(returns)
    drawn = likeness.features(likeness.simulated_returns(read_shock(shock), names, (folder, files), paths))
    for line in likeness.table(recorded, drawn, names):
        typer.echo(line)
    if kept is not None:
        source = f"liqstress compare-shock {shock} {folder}; {period}"
        kept.write_text(likeness.as_json(recorded, drawn, names, source), encoding="utf-8")


def _names(assets: str) -> list[str]:
    """Assets of a command line."""
    from stress.spec import InputError

    names = [name.strip() for name in assets.split(",")]
    if "" in names or len(set(names)) < len(names):
        raise InputError(f"assets is '{assets}', expected different names between commas. Mend it.")
    return names


def _files(given: list[str] | None) -> dict[str, str]:
    """Price files by asset, of a command line."""
    from stress.spec import InputError

    pairs = [text.partition("=") for text in given or ()]
    for text, (asset, _, name) in zip(given or (), pairs, strict=True):
        if not asset or not name:
            raise InputError(f"--file is '{text}', expected ASSET=FILE. Mend it.")
    return {asset: name for asset, _, name in pairs}
