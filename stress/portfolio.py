"""Positions read from a CSV or Parquet file: every row is checked before anything runs, none is dropped.

Rows are counted from 1; the header of a CSV file is not a row. Isolated, linear, USD-backed positions only.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as papq
from numpy.typing import NDArray

from stress.spec import InputError

_LABELS = ("venue", "asset", "mode")
_NUMBERS = ("quantity", "entry_price", "margin", "count")
_REQUIRED = ("venue", "account", "asset", "quantity", "entry_price", "margin", "mode")
_KNOWN = (*_REQUIRED, "count")
_CSV_TYPES = (
    {name: pa.dictionary(pa.int32(), pa.string()) for name in _LABELS}
    | {name: pa.float64() for name in _NUMBERS}
    | {"account": pa.string()}
)
_ODD = np.uint64(0x9E3779B97F4A7C15)
_ODD_INVERSE = np.uint64(pow(int(_ODD), -1, 1 << 64))


@dataclass(frozen=True)
class Positions:
    """Isolated, linear, USD-backed positions, each an account of its own; one array element per row of the file."""

    venue: NDArray[np.int32]
    """Index into the run's venues."""
    asset: NDArray[np.int32]
    """Index into the run's assets."""
    quantity: NDArray[np.float64]
    """Coins; a long is positive, a short negative."""
    entry_price: NDArray[np.float64]
    """USD per coin."""
    margin: NDArray[np.float64]
    """Cash of the position [USD]; negative where profit has been taken out."""
    count: NDArray[np.float64]
    """Identical copies of the row; whole in a file, fractional in a synthetic population."""

    def __len__(self) -> int:
        return len(self.quantity)


@dataclass(frozen=True)
class _Check:
    """One thing that must hold in every row of a column."""

    column: str
    bad: NDArray[np.bool_]
    expected: str
    advice: str


def read_positions(
    path: Path | str,
    venues: Sequence[str],
    assets_by_venue: Mapping[str, Collection[str]],
    assets: Sequence[str],
) -> Positions:
    """Read and check a file of positions.

    Columns: `venue, account, asset, quantity` [coins, signed], `entry_price` [USD/coin], `margin` [USD], `mode`
    (`isolated`), and optionally `count` (whole, 1 where the column is absent).

    Args:
        path: CSV (comma-separated, UTF-8, with a header) or Parquet file.
        venues: Names of the venues, in the order of `Positions.venue`.
        assets_by_venue: Assets listed at each venue.
        assets: Names of the assets, in the order of `Positions.asset`.

    Raises:
        InputError: The file or its first offending row is wrong; the message names row, column, value and remedy.
    """
    path = Path(path)
    table = _read(path)
    if table.num_rows == 0:
        raise InputError(f"{path}: has no rows, expected at least one position. Add positions, or use a population.")
    venue, asset = _lookup(table["venue"], venues), _lookup(table["asset"], assets)
    mode = _lookup(table["mode"], ("isolated", "cross"))
    listed = np.zeros((len(venues) + 1, len(assets) + 1), dtype=bool)
    markets = {name: [other for other in assets if other in assets_by_venue[name]] for name in venues}
    for v, name in enumerate(venues):
        listed[v, [assets.index(other) for other in markets[name]]] = True
    positions = Positions(venue, asset, **{name: _floats(table, name) for name in _NUMBERS})
    checks = (
        _Check("venue", venue < 0, _one_of(venues), "Correct it, or add the venue to the run."),
        _Check("asset", (venue >= 0) & ~listed[venue, asset], "", "Correct it, or add the market to the venue."),
        _Check("account", _blank(table["account"]), "a name or a number", "Give each account a name."),
        _Check("mode", mode == 1, "'isolated': cross margin is not supported yet", "Take such rows out."),
        _Check("mode", mode < 0, "'isolated'", "Correct it."),
        *_number_checks(positions),
    )
    _refuse_first(path, table, checks, markets)
    _refuse_repeats(path, table, positions, len(assets))
    return positions


def _number_checks(positions: Positions) -> Iterator[_Check]:
    quantity, price, count = positions.quantity, positions.entry_price, positions.count
    yield _Check(
        "quantity",
        ~np.isfinite(quantity) | (quantity == 0),
        "coins other than 0, positive for a long and negative for a short",
        "Correct it, or remove the row.",
    )
    yield _Check("entry_price", ~((price > 0) & (price < np.inf)), "a price above 0 USD per coin", "Correct it.")
    yield _Check(
        "margin", ~np.isfinite(positions.margin), "the margin in USD of an isolated position", "Fill in the number."
    )
    yield _Check(
        "count",
        ~((count >= 1) & (count < np.inf) & (np.floor(count) == count)),
        "a whole number of at least 1",
        "Correct it, or leave the column out where every row stands for one account.",
    )


def _refuse_first(path: Path, table: pa.Table, checks: Sequence[_Check], markets: Mapping[str, list[str]]) -> None:
    """Raise for the first row that fails a check; of several checks, the first in order."""
    failed = [(int(np.argmax(check.bad)), i) for i, check in enumerate(checks) if check.bad.any()]
    if not failed:
        return
    row, i = min(failed)
    check = checks[i]
    value = table[check.column][row].as_py()
    expected, names = check.expected, list(markets) if check.column == "venue" else []
    if check.column == "asset":
        venue = table["venue"][row].as_py()
        names = markets[venue]
        expected = f"{_one_of(names)}, the markets of '{venue}' in this run"
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    raise InputError(f"{_cell(path, row, check.column, value)}, expected {expected}. {hint}{check.advice}")


def _refuse_repeats(path: Path, table: pa.Table, positions: Positions, n_assets: int) -> None:
    """Raise where venue, account and asset are those of an earlier row."""
    market = positions.venue * np.int64(n_assets) + positions.asset
    prints = _fingerprints(table["account"]) ^ (market.astype(np.uint64) * _ODD)
    prints.sort()
    if not (prints[1:] == prints[:-1]).any():
        return
    account = _codes(table["account"])[0].astype(np.int64)
    key = account * (int(market.max()) + 1) + market
    later = np.ones(len(key), dtype=bool)
    later[np.unique(key, return_index=True)[1]] = False
    if not later.any():
        return
    row = int(np.argmax(later))
    first = int(np.argmax(key == key[row]))
    what = {name: table[name][row].as_py() for name in ("venue", "account", "asset")}
    raise InputError(
        f"{_cell(path, row, 'account', what['account'])} with venue {what['venue']!r} and asset {what['asset']!r} as "
        f"in row {first + 1}, expected one row for each venue, account and asset. Net the rows, or rename the account."
    )


def _fingerprints(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """64 bits a cell, the same for the same content; different content hardly ever shares them.

    Text: sum_k (byte_k + 1) odd^k modulo 2^64, by differences of running sums, several times faster than a hash table.
    """
    if pa.types.is_dictionary(column.type):
        return _codes(column)[0].astype(np.uint64)
    if pa.types.is_integer(column.type):
        return column.to_numpy().astype(np.int64, copy=False).view(np.uint64)
    rows = 1 << 14
    pieces = [chunk.slice(i, rows) for chunk in column.chunks for i in range(0, len(chunk), rows)]
    width = np.int64 if pa.types.is_large_string(column.type) else np.int32
    prints = np.empty(len(column), dtype=np.uint64)
    powers = np.ones((2, 1), dtype=np.uint64)
    done = 0
    for piece in pieces:
        _, offsets, data = piece.buffers()
        bounds = np.frombuffer(offsets, dtype=width)[piece.offset : piece.offset + len(piece) + 1]
        text = np.frombuffer(data, dtype=np.uint8)[bounds[0] : bounds[-1]]
        bounds = bounds - bounds[0]
        if len(text) >= powers.shape[1]:
            factors = np.broadcast_to(np.array([[_ODD], [_ODD_INVERSE]]), (2, 2 * len(text)))
            powers = np.concatenate([powers[:, :1], np.cumprod(factors, axis=1)], axis=1)
        sums = np.zeros(len(text) + 1, dtype=np.uint64)
        np.cumsum((text + np.uint64(1)) * powers[0, : len(text)], out=sums[1:])
        prints[done : done + len(piece)] = (sums[bounds[1:]] - sums[bounds[:-1]]) * powers[1][bounds[:-1]]
        done += len(piece)
    return prints


def _read(path: Path) -> pa.Table:
    """The file as a table with the columns in order, labels dictionary-encoded or text, numbers as float64."""
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file. Give the path of a CSV or Parquet file.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Give a readable CSV or Parquet file.") from None
    if not head:
        raise InputError(f"{path}: is empty, expected a header and rows. Give a CSV or Parquet file of positions.")
    if head[:4] == b"PAR1":
        return _read_parquet(path)
    if b"\0" in head or path.suffix.lower() in (".parquet", ".pq"):
        raise InputError(f"{path}: is neither CSV nor Parquet. Save the positions as UTF-8 CSV or as Parquet.")
    first_line = head.decode("utf-8-sig", errors="replace").splitlines()[0]
    _check_header(path, next(csv.reader([first_line]), []))
    try:
        return pacsv.read_csv(path, convert_options=_convert(_CSV_TYPES))
    except pa.ArrowInvalid as error:
        _refuse_csv(path, error)


def _convert(types: Mapping[str, pa.DataType]) -> pacsv.ConvertOptions:
    return pacsv.ConvertOptions(column_types=dict(types), null_values=[""], strings_can_be_null=True)


def _check_header(path: Path, names: Sequence[str]) -> None:
    for name in names:
        if name not in _KNOWN:
            near = difflib.get_close_matches(name, _KNOWN, n=1)
            advice = f"Did you mean '{near[0]}'?" if near else "Remove or rename it; separate columns by commas."
            raise InputError(f"{path}: column {name!r} is unknown, expected columns {', '.join(_KNOWN)}. {advice}")
        if list(names).count(name) > 1:
            raise InputError(f"{path}: column '{name}' occurs more than once, expected once. Remove one of them.")
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise InputError(f"{path}: column '{missing[0]}' is missing, expected {', '.join(_REQUIRED)}. Add the column.")


def _refuse_csv(path: Path, error: Exception) -> NoReturn:
    """Find the row that the fast reader choked on, by reading everything as text."""
    ragged: list[Any] = []
    try:
        text = pacsv.read_csv(
            path,
            read_options=pacsv.ReadOptions(use_threads=False),
            parse_options=pacsv.ParseOptions(invalid_row_handler=lambda row: ragged.append(row) or "skip"),
            convert_options=_convert(dict.fromkeys(_KNOWN, pa.string())),
        )
    except pa.ArrowInvalid as reason:
        raise InputError(f"{path}: cannot be read as CSV ({reason}). Save it as UTF-8 CSV or as Parquet.") from None
    if ragged:
        row = ragged[0]
        raise InputError(
            f"{path}: row {row.number - 1} has {row.actual_columns} columns, expected {row.expected_columns} as in "
            "the header. Mend the row; numbers have no thousands separator."
        )
    faults = [(_first_non_number(text[name]), name) for name in _NUMBERS if name in text.column_names]
    row, name = min((fault for fault in faults if fault[0] < text.num_rows), default=(-1, ""))
    if row < 0:
        raise InputError(f"{path}: cannot be read as CSV ({error}). Save it as UTF-8 CSV or as Parquet.")
    raise InputError(f"{_cell(path, row, name, text[name][row].as_py())}, expected a number. Write it like -1234.5.")


def _first_non_number(text: pa.ChunkedArray) -> int:
    """First row that is not a number, by bisection; the length where all are."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high) // 2
        try:
            text.slice(low, middle + 1 - low).cast(pa.float64())
            low = middle + 1
        except pa.ArrowInvalid:
            high = middle
    return low


def _read_parquet(path: Path) -> pa.Table:
    try:
        with papq.ParquetFile(path, read_dictionary=list(_LABELS)) as file:
            _check_header(path, file.schema_arrow.names)
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error}). Write the file anew.") from None
    for i, name in enumerate(table.column_names):
        kind = table.schema.field(name).type
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        whole, null = pa.types.is_integer(plain), pa.types.is_null(plain)
        number = whole or pa.types.is_floating(plain) or pa.types.is_decimal(plain)
        text = pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain)
        if name in _NUMBERS:
            right, expected = number, "numbers"
        else:
            right, expected = text or (whole and name == "account"), "text"
        if not (right or null):
            raise InputError(f"{path}: column '{name}' is of type {kind}, expected {expected}. Convert the column.")
        if name in _NUMBERS:
            table = table.set_column(i, name, table[name].cast(plain).cast(pa.float64(), safe=False))
        elif null or pa.types.is_string_view(plain):
            table = table.set_column(i, name, table[name].cast(pa.string()))
    return table


def _codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], pa.Array]:
    """Each row as an index into the distinct values, and those; an empty cell points just past them."""
    encoded = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    chunk = encoded.combine_chunks()
    codes = chunk.indices
    if codes.null_count:
        codes = codes.cast(pa.int32()).fill_null(len(chunk.dictionary))
    return codes.to_numpy(zero_copy_only=False).astype(np.int32, copy=False), chunk.dictionary


def _lookup(column: pa.ChunkedArray, names: Sequence[str]) -> NDArray[np.int32]:
    """Each row as an index into `names`; -1 where it is none of them."""
    codes, values = _codes(column)
    index = {name: i for i, name in enumerate(names)}
    return np.array([index.get(value, -1) for value in [*values.to_pylist(), None]], dtype=np.int32)[codes]


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column of numbers; NaN in an empty cell, 1 where the column is absent."""
    return table[name].to_numpy() if name in table.column_names else np.ones(table.num_rows)


def _blank(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Where a cell is empty."""
    if pa.types.is_integer(column.type):
        return column.is_null().to_numpy()
    return pc.call_function("equal", [column, pa.scalar("", column.type)]).fill_null(True).to_numpy()


def _cell(path: Path, row: int, column: str, value: Any) -> str:
    return f"{path}: row {row + 1}: {column} is {'empty' if value in (None, '') else repr(value)}"


def _one_of(names: Collection[str]) -> str:
    return f"one of {', '.join(names)}"
