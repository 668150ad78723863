"""Published figures of the model's defaults beside our own, from one config.

Totals of at least 100 M USD are held to 15 % of the mean of the published figures; what single layers took, what funds
lost and what was read off a few dozen random days is indicative.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stress.config import Run, load_config
from stress.devices import Kind
from stress.published import CASES, Case, File, Times
from stress.run import Progress, simulate_in_memory
from stress.spec import InputError, read_toml, validate

if TYPE_CHECKING:
    from rich.console import Console

DEFAULTS = Path(__file__).resolve().parents[1] / "configs" / "reference.toml"
"""The model's defaults, in a source checkout."""
TOLERANCE = 0.15
"""Largest distance of a held figure from the mean of the published ones [1]."""
_HELD_FROM = 100.0


@dataclass(frozen=True)
class Row:
    """A published quantity beside our own."""

    case: str
    quantity: str
    unit: str
    published: tuple[float, ...]
    ours: float
    held: bool
    """Whether 15 % are asked of it; otherwise the figure is indicative."""

    @property
    def ratio(self) -> float:
        """Ours over the mean of the published figures [1]."""
        return self.ours / float(np.mean(self.published))

    @property
    def within(self) -> bool:
        """Whether ours lies within 15 % of the mean of the published figures."""
        return abs(self.ratio - 1) <= TOLERANCE


def table(
    config: str | Path = DEFAULTS,
    *,
    prices: str | Path | None = None,
    cases: Sequence[Case] | None = None,
    device: Kind = "auto",
    progress: Progress | None = None,
) -> list[Row]:
    """Run every case and set its figures beside the published ones.

    Args:
        config: The model's defaults; files of a case are relative to it.
        prices: Folder of minute prices of May 2021; without it the replays are left out.
        cases: Which cases; all of `CASES` if absent.
        device: As of `stress.run.run`.
        progress: Told of every case that is done.

    Raises:
        InputError: The config or a price file is absent or wrong.
    """
    if not Path(config).is_file():
        raise InputError(f"{config}: there is no such file. Work in a source checkout, or give the reference config.")
    chosen = [case for case in (CASES if cases is None else cases) if prices is not None or not case.needs_prices]
    rows: list[Row] = []
    for done, case in enumerate(chosen):
        if progress:
            progress(done, len(chosen))
        rows += run_case(case, configure(case, Path(config), prices if case.needs_prices else None), device)
    if progress:
        progress(len(chosen), len(chosen))
    return rows


def run_case(case: Case, run: Run, device: Kind = "auto") -> list[Row]:
    """Simulate one case and read its figures off."""
    ds = simulate_in_memory(run, device=device)
    if case.select is not None:
        ds = ds.isel(path=np.flatnonzero(case.select(run)))
    return [
        Row(
            case.name, figure.quantity, figure.unit, figure.published, figure.measure(ds),
            held=figure.total and float(np.mean(figure.published)) >= _HELD_FROM,
        )
        for figure in case.figures
    ]  # fmt: skip


def configure(case: Case, config: Path, prices: str | Path | None = None) -> Run:
    """The config of a case: the defaults with its changes put over them."""
    data = load_config(config, prices=prices).model_dump()
    for key, value in case.changes.items():
        _put(data, key.split("."), value, config.parent)
    return validate(Run, data | {"name": "reference"}, f"{config}: case '{case.name}'")


def _put(node: Any, keys: Sequence[str], value: Any, base: Path) -> None:
    """Set a value in nested tables; `*` stands for every key of a table and every item of a list."""
    key, *rest = keys
    every: Iterable[Any] = (key,) if key != "*" else list(node) if isinstance(node, dict) else range(len(node))
    for one in every:
        if rest:
            _put(node[one], rest, value, base)
        elif isinstance(value, File):
            node[one] = read_toml(base / value.name)
        elif isinstance(value, Times):
            node[one] = node[one] * value.factor
        elif isinstance(value, dict):
            node[one] = {k: read_toml(base / v.name) if isinstance(v, File) else v for k, v in value.items()}
        else:
            node[one] = value


def to_csv(rows: Sequence[Row]) -> str:
    """The table as comma-separated text; where two figures are published both stand in one place."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["case", "quantity", "unit", "published", "ours", "ratio", f"within {TOLERANCE:.0%}", "held"])
    for row in rows:
        published = " and ".join(f"{value:g}" for value in row.published)
        verdicts = ["yes" if true else "no" for true in (row.within, row.held)]
        writer.writerow([row.case, row.quantity, row.unit, published, f"{row.ours:.4g}", f"{row.ratio:.3f}", *verdicts])
    return out.getvalue()


def print_table(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print published figures and ours side by side, and how many of those held to 15 % are within it."""
    from rich.console import Console
    from rich.table import Table

    out = console or Console()
    shown = Table(title="Published figures of the model's defaults, and ours")
    for name in ("case", "quantity", "unit"):
        shown.add_column(name)
    for name in ("published", "ours", "ratio", f"within {TOLERANCE:.0%}"):
        shown.add_column(name, justify="right")
    previous = ""
    for row in rows:
        verdict = ("yes" if row.within else "[bold]no[/bold]") if row.held else f"({'yes' if row.within else 'no'})"
        published = ", ".join(f"{value:g}" for value in row.published)
        case = "" if row.case == previous else row.case
        ours = f"{row.ours:.0f}" if abs(row.ours) >= 1000 else f"{row.ours:.3g}"
        shown.add_row(case, row.quantity, row.unit, published, ours, f"{row.ratio:.2f}", verdict)
        previous = row.case
    out.print(shown)
    held = [row for row in rows if row.held]
    met = sum(row.within for row in held)
    out.print(
        f"{met} of {len(held)} totals of at least {_HELD_FROM:.0f} M USD lie within {TOLERANCE:.0%} of the published "
        "figures (of their mean where there are two). In brackets: indicative, nothing is asked of these."
    )
