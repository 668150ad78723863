"""Recorded prices: bars from a file, checked row by row, and the log-price path that a replay follows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Float64, Int64

from stress.spec import InputError

_SUFFIXES = (".csv", ".parquet", ".feather")
_QUOTES = ("USDT", "USDC", "USD", "BUSD", "FDUSD", "TUSD", "DAI", "EUR", "PERP")
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY = 86400
_OLDEST, _NEWEST = 1230768000, 4102444800  # 2009-01-01, before the first bitcoin, and 2100-01-01 [s]
_PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True)
class Bars:
    """A price table of one asset; bar i covers [time[i], time[i] + bar_seconds).

    The open is the price at `time`, the close the price at `time + bar_seconds`.
    """

    name: str
    """File it comes from, for messages."""
    time: Int64[np.ndarray, " bar"]
    """Opening instant, ascending, UTC [s since 1970]."""
    open: Float64[np.ndarray, " bar"]
    high: Float64[np.ndarray, " bar"]
    low: Float64[np.ndarray, " bar"]
    close: Float64[np.ndarray, " bar"]
    volume: Float64[np.ndarray, " bar"] | None
    """As the file has it, or None."""
    bar_seconds: int
    """Length of a bar: the commonest distance between two [s]."""


def iso(seconds: int | np.integer) -> str:
    """An instant as people read it, UTC."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(text: str, field: str = "shock.start") -> int:
    """Seconds since 1970 of an ISO 8601 time; without a zone it is UTC."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{field} is '{text}', expected an ISO 8601 time such as 2021-05-19T00:00:00Z. Mend it."
        ) from None
    seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if seconds != int(seconds):
        raise InputError(f"{field} is '{text}', expected a whole second. Leave the fraction out.")
    return int(seconds)


def ending(text: str, field: str = "shock.until") -> int:
    """The end of a period [s since 1970]: an instant, or the end of a day."""
    return instant(text, field) + (_DAY if len(text) == len("2021-05-19") else 0)


def find_file(folder: Path, asset: str, files: Mapping[str, str]) -> Path:
    """The price file of an asset: what `prices.files` names, else the one file whose name starts with the asset."""
    if asset in files:
        return folder / files[asset]
    if not folder.is_dir():
        raise InputError(f"prices.dir is '{folder}', expected a folder of price files. Give one that exists.")
    known = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    fits = [path for path in known if path.stem.upper().startswith(asset.upper())]
    advice = f'Say which with prices.files: {asset} = "FILE" (fit-shocks, compare-shock: --file {asset}=FILE).'
    if not fits:
        names = ", ".join(path.name for path in known[:8]) or "no CSV, Parquet or Feather file"
        raise InputError(
            f"{folder}: has no price file of {asset} (it holds {names}), "
            f"expected {asset}.csv, {asset}.parquet or {asset}... Add one, or name it in prices.files."
        )
    if len(fits) > 1:
        names = ", ".join(path.name for path in fits)
        raise InputError(f"{folder}: {len(fits)} files fit {asset} ({names}), expected one. {advice}")
    rest = fits[0].stem.upper().removeprefix(asset.upper())
    if re.match(r"[A-Z0-9]", rest) and not rest.startswith(_QUOTES):
        raise InputError(
            f"{folder}: {fits[0].name} may be another asset, expected {asset} and a quote currency. {advice}"
        )
    return fits[0]


def read_bars(path: Path) -> Bars:
    """Bars of a CSV, Parquet or Feather file with `time, open, high, low, close[, volume]`; other columns are not read.

    `time` may be a time stamp, an ISO 8601 text or a whole number of s, ms, us or ns since 1970; no zone means UTC.
    """
    table = _table(path)
    for column in ("time", *_PRICES):
        if column not in table.column_names:
            names = ", ".join(table.column_names)
            raise InputError(
                f"{path}: column {column} is missing (there are: {names}), expected time, open, high, low, close. "
                "Add or rename it."
            )
    if table.num_rows < 2:
        raise InputError(f"{path}: has {table.num_rows} rows, expected two bars or more. Give a longer file.")
    time = _times(path, _plain(table["time"]))
    prices = {column: _numbers(path, column, table[column]) for column in _PRICES}
    volume = _numbers(path, "volume", table["volume"]) if "volume" in table.column_names else None
    bar_seconds = _check_times(path, time)
    _check_prices(path, prices, volume)
    return Bars(name=str(path), time=time, volume=volume, bar_seconds=bar_seconds, **prices)


def _table(path: Path) -> pa.Table:
    if not path.is_file():
        raise InputError(
            f"{path}: is not a file, expected a price file. Give the path of a CSV, Parquet or Feather file."
        )
    try:
        match path.suffix.lower():
            case ".csv":
                return pyarrow.csv.read_csv(path)
            case ".parquet":
                return pyarrow.parquet.ParquetFile(path).read()
            case ".feather":
                return pa.ipc.open_file(path).read_all()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: cannot be read ({reason}), expected {path.suffix[1:]} data. Mend or replace it."
        ) from None
    raise InputError(f"{path}: ends in '{path.suffix}', expected .csv, .parquet or .feather. Convert it.")


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _refuse(path: Path, index: Any, column: str, value: Any, expected: str, advice: str) -> NoReturn:
    """Refuse the row with this index from 0; people count from 1, the header left out."""
    raise InputError(f"{path}: row {int(index) + 1}: {column} is {value}, expected {expected}. {advice}")


def _numbers(path: Path, name: str, column: pa.ChunkedArray) -> Float64[np.ndarray, " bar"]:
    column, advice = _plain(column), "Mend or remove the row."
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        for i, text in enumerate(column.to_pylist()):
            try:
                float(text)
            except (TypeError, ValueError):
                _refuse(path, i, name, repr(text), "a number", advice)
        raise InputError(f"{path}: {name} is text, expected numbers. Store it as numbers.")
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_decimal(column.type)):
        raise InputError(f"{path}: {name} is of type {column.type}, expected numbers. Store it as numbers.")
    values = column.cast(pa.float64()).to_numpy().astype(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        _refuse(
            path,
            bad.argmax(),
            name,
            "empty or NaN" if np.isnan(values[bad.argmax()]) else "infinite",
            "a number",
            advice,
        )
    return values


def _times(path: Path, column: pa.ChunkedArray) -> Int64[np.ndarray, " bar"]:
    """The time column in whole seconds since 1970 [s]."""
    advice = "Give the bar's opening time, UTC."
    if column.null_count:
        _refuse(path, column.is_null().to_numpy().argmax(), "time", "empty", "a time", advice)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        seconds = np.empty(len(column), np.int64)
        for i, text in enumerate(column.to_pylist()):
            try:
                seconds[i] = instant(text)
            except InputError:
                _refuse(path, i, "time", repr(text), "an ISO 8601 time of a whole second", advice)
        return seconds
    if pa.types.is_date32(column.type):
        return column.cast(pa.int32()).to_numpy().astype(np.int64) * _DAY
    if pa.types.is_timestamp(column.type):
        unit, values = column.type.unit, column.cast(pa.int64()).to_numpy()
    elif pa.types.is_integer(column.type):
        values = column.cast(pa.int64()).to_numpy()
        unit = next((u for u, ticks in _TICKS.items() if abs(int(values[0])) < _NEWEST * ticks), "ns")
    else:
        raise InputError(
            f"{path}: time is of type {column.type}, expected time stamps, ISO 8601 text or whole numbers. {advice}"
        )
    seconds, rest = np.divmod(values, _TICKS[unit])
    if rest.any():
        _refuse(path, (rest != 0).argmax(), "time", f"{values[(rest != 0).argmax()]} {unit}", "a whole second", advice)
    return seconds


def _check_times(path: Path, time: Int64[np.ndarray, " bar"]) -> int:
    """Refuse times out of range, out of order or off the grid of bars; the length of a bar [s]."""
    odd = (time < _OLDEST) | (time >= _NEWEST)
    if odd.any():
        _refuse(
            path,
            odd.argmax(),
            "time",
            f"{time[odd.argmax()]} s",
            "a time from 2009 to 2099",
            "Use one unit throughout: s, ms, us or ns.",
        )
    distance = np.diff(time)
    late = distance <= 0
    if late.any():
        row = int(late.argmax()) + 1
        what = (
            "the same as the row above" if distance[row - 1] == 0 else f"before {iso(time[row - 1])} of the row above"
        )
        _refuse(
            path, row, "time", f"{iso(time[row])}, {what}", "ascending times", "Sort the file by time and drop repeats."
        )
    lengths, counts = np.unique(distance, return_counts=True)
    bar = int(lengths[counts.argmax()])
    off = distance % bar != 0
    if off.any():
        row = int(off.argmax()) + 1
        _refuse(
            path,
            row,
            "time",
            iso(time[row]),
            f"a whole number of {bar} s bars after {iso(time[row - 1])}",
            "Resample to even bars.",
        )
    return bar


def _check_prices(path: Path, prices: Mapping[str, np.ndarray], volume: np.ndarray | None) -> None:
    """Refuse prices that are not positive, bars that do not hold their open and close, and negative volumes."""
    advice = "Mend or remove the row."
    for column, values in prices.items():
        bad = values <= 0
        if bad.any():
            _refuse(path, bad.argmax(), column, f"{values[bad.argmax()]:g}", "a price above 0", advice)
    body = np.stack([prices["open"], prices["close"]])
    for column, bound, bad in (
        ("high", body.max(axis=0), prices["high"] < np.maximum(body.max(axis=0), prices["low"])),
        ("low", body.min(axis=0), prices["low"] > body.min(axis=0)),
    ):
        if bad.any():
            row = bad.argmax()
            word = "at least" if column == "high" else "at most"
            _refuse(
                path,
                row,
                column,
                f"{prices[column][row]:g}",
                f"{word} {bound[row]:g}, as open, close and low or high say",
                advice,
            )
    if volume is not None and (volume < 0).any():
        row = (volume < 0).argmax()
        _refuse(path, row, "volume", f"{volume[row]:g}", "0 or more", advice)


def replay_log_prices(
    bars: Bars,
    start: int,
    horizon_seconds: int,
    step_seconds: int,
    inside_bars: str = "by_close",
    end_field: str = "horizon_hours",
) -> Float64[np.ndarray, " {horizon_seconds//step_seconds}+1"]:
    """Log-price [ln USD] at `start` and after each step, from recorded bars.

    The price at `start` is the open of the bar that opens there; the price at a bar's end is its close. Where the step
    is a bar or longer that is all. Inside a longer bar the path walks open-low-high-close or open-high-low-close, at
    four equally spaced points (0, 1/3, 2/3 and all of the bar), straight in logs between them; where an open differs
    from the close before, the path jumps just after the boundary. Extremes are seen exactly where the step divides a
    third of the bar: 20 s or 50 s, not 60 s, in bars of 5 minutes.

    Args:
        bars: Price table.
        start: First instant, an opening time of a bar [s since 1970].
        horizon_seconds: A whole multiple of the step [s].
        step_seconds: A whole multiple of the bar, or shorter than it [s].
        inside_bars: Which extreme comes first: by_close, the low in a bar that closes up and the high in any other;
            low_first; high_first; straight, from open to close without them.
        end_field: What decides the horizon, for messages.
    """
    if horizon_seconds % step_seconds:
        raise InputError(
            f"horizon is {horizon_seconds} s, expected whole steps of {step_seconds} s. Change one of the two."
        )
    bar = bars.bar_seconds
    if step_seconds >= bar and step_seconds % bar:
        raise InputError(
            f"{bars.name}: step_seconds is {step_seconds}, expected whole bars of {bar} s, or less than one. "
            "Change step_seconds."
        )
    window = _window(bars, start, horizon_seconds, end_field)
    o, h, low, c = (np.log(getattr(bars, column)[window]) for column in _PRICES)
    if step_seconds >= bar:
        each = step_seconds // bar
        return np.concatenate([o[:1], c[each - 1 :: each]])
    low_first = {"by_close": c > o, "low_first": np.ones_like(c, bool), "high_first": np.zeros_like(c, bool)}
    if inside_bars == "straight":
        corners = np.linspace(o, c, 4)
    else:
        up = low_first[inside_bars]
        corners = np.stack([o, np.where(up, low, h), np.where(up, h, low), c])
    since = np.arange(0, horizon_seconds + 1, step_seconds)
    index = np.maximum(-(-since // bar) - 1, 0)
    phase = 3 * (since - index * bar) / bar
    leg = np.clip(np.ceil(phase).astype(int) - 1, 0, 2)
    weight = phase - leg
    return (1 - weight) * corners[leg, index] + weight * corners[leg + 1, index]


def _window(bars: Bars, start: int, horizon_seconds: int, end_field: str) -> slice:
    """Rows of the bars that cover [start, start + horizon); refused where one of them is not there."""
    bar, time = bars.bar_seconds, bars.time
    end = start + horizon_seconds
    if start < time[0] or end > time[-1] + bar:
        raise InputError(
            f"{bars.name}: covers {iso(time[0])} to {iso(time[-1] + bar)}, expected {iso(start)} to {iso(end)}. "
            f"Change shock.start or {end_field}, or give a longer file."
        )
    late = (start - int(time[0])) % bar
    if late:
        near = f"{iso(start - late)} or {iso(start - late + bar)}"
        raise InputError(
            f"{bars.name}: shock.start is {iso(start)}, expected the opening of a bar of {bar} s. Use {near}."
        )
    wanted = np.arange(start, end, bar)
    first = int(np.searchsorted(time, start))
    found = time[first : first + len(wanted)]
    same = found == wanted[: len(found)]
    if len(found) < len(wanted) or not same.all():
        gap = int(wanted[len(found) if same.all() else same.argmin()])
        after = time[np.searchsorted(time, gap)]
        raise InputError(
            f"{bars.name}: has no bars from {iso(gap)} to {iso(after)}, expected every bar from {iso(start)} to "
            f"{iso(end)}. Change shock.start or {end_field}, or fill the gap."
        )
    return slice(first, first + len(wanted))


def load_replay(
    folder: Path,
    files: Mapping[str, str],
    assets: Sequence[str],
    start: str,
    horizon_seconds: int,
    step_seconds: int,
    inside_bars: str = "by_close",
    end_field: str = "horizon_hours",
    longest_bar: int | None = None,
) -> dict[str, Float64[np.ndarray, " {horizon_seconds//step_seconds}+1"]]:
    """Log-price paths [ln USD] by asset over one window, from the price files of a run, as `replay_log_prices`.

    `start` is ISO 8601, UTC. Bars have to divide `longest_bar` [s] where there is one.
    """
    first, paths = instant(start), {}
    for asset in assets:
        bars = read_bars(find_file(folder, asset, files))
        if longest_bar is not None and longest_bar % bars.bar_seconds:
            raise InputError(
                f"{bars.name}: has bars of {bars.bar_seconds} s, expected a divisor of {longest_bar} s, as whole hours "
                "are drawn. Give finer prices."
            )
        paths[asset] = replay_log_prices(bars, first, horizon_seconds, step_seconds, inside_bars, end_field)
    return paths
