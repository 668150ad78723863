"""Shocks from folders of price files, and as TOML that a config can name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stress.fits.bates import fit_bates
from stress.fits.blocks import fit_block_bootstrap
from stress.fits.garch import fit_garch
from stress.fits.gbm import fit_gbm
from stress.fits.kou import fit_kou
from stress.fits.merton import fit_merton
from stress.fits.student_t import fit_student_t
from stress.prices import Bars, ending, find_file, read_bars
from stress.spec import InputError, Spec

FITS = {
    "gbm": fit_gbm,
    "merton": fit_merton,
    "kou": fit_kou,
    "bates": fit_bates,
    "student_t": fit_student_t,
    "garch": fit_garch,
    "block_bootstrap": fit_block_bootstrap,
}
"""By the `kind` of the shock."""
_HOUR = 3600


def fit_shocks(
    prices_dirs: Sequence[Path],
    assets: Sequence[str],
    kind: str = "merton",
    until: str | None = None,
    level: float | None = None,
    files: Mapping[str, str] | None = None,
) -> tuple[Spec, dict[str, Any]]:
    """Fit to folders of price files: one of hourly bars, any number of minute bars of the first asset.

    Args:
        prices_dirs: Folders; the length of the first asset's bars says which is which.
        assets: The leader first.
        kind: Of the shock.
        until: Last day or instant used, ISO 8601, UTC; a day counts whole.
        level: As in `fit_merton`.
        files: As `prices.files` of a run.
    """
    if level is not None and not 0 < level < np.inf:
        raise InputError(f"level is {level:g}, expected a daily volatility above 0 such as 0.026. Mend it.")
    hourly, minute = read_prices(prices_dirs, assets, until, files)
    return FITS[kind](hourly, minute, level)


def read_prices(
    prices_dirs: Sequence[Path],
    assets: Sequence[str],
    until: str | None = None,
    files: Mapping[str, str] | None = None,
) -> tuple[dict[str, Bars], list[Bars]]:
    """Hourly bars of each asset, and tables of minute bars of the first one; arguments as in `fit_shocks`."""
    end = None if until is None else ending(until, "until")
    hourly: dict[str, Bars] = {}
    minute: list[Bars] = []
    for folder in prices_dirs:
        leader = _before(read_bars(find_file(folder, assets[0], files or {})), end)
        if leader.bar_seconds == 60:
            minute.append(leader)
        elif leader.bar_seconds != _HOUR or hourly:
            what = f"has bars of {leader.bar_seconds} s, expected one folder of 3600 s and others of 60 s"
            raise InputError(f"{leader.name}: {what}. Leave it out.")
        else:
            hourly = {asset: _before(read_bars(find_file(folder, asset, files or {})), end) for asset in assets}
    if not hourly:
        raise InputError(f"prices of {assets[0]}: there are no hourly bars, expected one folder of them. Name it.")
    return hourly, minute


def _before(bars: Bars, end: int | None) -> Bars:
    """The bars that are over by an instant."""
    keep = slice(None if end is None else int(np.searchsorted(bars.time + bars.bar_seconds, end, side="right")))
    columns = {name: getattr(bars, name)[keep] for name in ("time", "open", "high", "low", "close")}
    return replace(bars, **columns, volume=None)


def to_toml(shock: Spec, source: str, report: Mapping[str, Any]) -> str:
    """A shock table as TOML, source and period in it, standard errors and checks as comments."""
    period = report["period"]
    head = [f"# Made by: {source}", f"# Prices: {period}. After +-: the standard error."]
    if report["scale"] != 1:
        head.append(f"# All returns were scaled by {report['scale']:.4g} first.")
    head += [f"# {note}" for note in report["notes"]]
    table = {**shock.model_dump(mode="json", exclude_none=True), "source": f"{source}; {period}"}
    return "\n".join([*head, *_lines(table, report["standard_errors"], ""), ""])


def _lines(table: Mapping[str, Any], errors: Mapping[str, Any], path: str) -> list[str]:
    """A table and its sub-tables as TOML, with standard errors behind the numbers."""
    lines = ["", f"[{path}]"] if path and not all(isinstance(value, Mapping) for value in table.values()) else []
    order = {"kind": 0, "source": 1}
    for key, value in sorted(table.items(), key=lambda item: order.get(item[0], 2)):
        error = np.ravel(errors.get(key, 0.0)) if not isinstance(value, Mapping) else None
        if error is None:
            continue
        if key == "correlation":
            rows = [f"  {json.dumps(row)}," for row in value]
            lines += [f"correlation = [  # +- {error.max():.2g} at most", *rows, "]"]
        else:
            note = "  # +- " + ", ".join(f"{part:.2g}" for part in error) if error.max() > 1e-12 else ""
            lines.append(f"{key} = {json.dumps(value)}{note}")
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            lines += _lines(value, errors.get(key, {}), f"{path}.{key}" if path else key)
    return lines
