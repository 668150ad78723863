"""Arguments and options that several commands share, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stress.spec import RunError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stress.config import Run

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file of the run.", show_default=False)]
Store = Annotated[Path, typer.Argument(metavar="RUN", help="Store of a finished run.", show_default=False)]
Cell = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="Store of a finished run, or SUITE#SCENARIO/POLICY.", show_default=False),
]
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
Device = Annotated[
    Literal["auto", "cpu", "gpu"], typer.Option(help="Where to compute; auto takes a GPU where there is one.")
]


def collected(
    paths: int | None, seed: int | None, overrides: list[str] | None, policies: list[Path] | None, prices: Path | None
) -> dict[str, Any]:
    """What a command line says beside the config."""
    from stress.config import parse_override
    from stress.policies import read_policy

    values = dict(parse_override(text) for text in overrides or ())
    read = [read_policy(file) for file in policies or ()]
    return {"paths": paths, "seed": seed, "prices": prices, "policies": read, "overrides": values}


def load(config: Path, paths: int | None, seed: int | None, overrides: list[str] | None, prices: Path | None) -> Run:
    """The config of a command line."""
    from stress.config import load_config

    return load_config(config, **collected(paths, seed, overrides, None, prices))


def beside(store: Path, *words: str | None) -> Path:
    """The PNG of a run beside its store, or of a cell beside its suite's, named after it and by words."""
    folder, _, place = str(store).partition("#")
    path = Path(folder)
    stem = path.with_suffix("") if path.suffix == ".zarr" else path
    return stem.with_name("-".join(word.replace("/", "-") for word in (stem.name, place, *words) if word) + ".png")


def saved(figure: Figure, png: Path, advice: str = "Give another place, or mend this one.") -> Path:
    """A picture as PNG and SVG; the PNG's name. What is said where it cannot be written ends with `advice`."""
    from stress.drawing import save

    try:
        return save(figure, png)[0]
    except OSError as error:
        for written in (png, png.with_suffix(".svg")):
            written.unlink(missing_ok=True)
        raise RunError(f"{png}: cannot be written: {error.strerror}. {advice}") from error
