"""Tables that users write, read from CSV or Parquet: every row is checked, none is dropped.

Rows are counted from 1; the header of a CSV file is not a row.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Collection, Mapping, Sequence
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


@dataclass(frozen=True)
class Layout:
    """The columns of a table; others are refused."""

    what: str
    """What its rows are, in the plural."""
    columns: tuple[str, ...]
    """Those that must be there, in the order in which they are named to people."""
    labels: tuple[str, ...]
    """Columns of few distinct words."""
    numbers: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def known(self) -> tuple[str, ...]:
        """All columns."""
        return *self.columns, *self.optional

    @property
    def types(self) -> dict[str, pa.DataType]:
        """Of the columns of a CSV file."""
        few = {name: pa.dictionary(pa.int32(), pa.string()) for name in self.labels}
        return dict.fromkeys(self.known, pa.string()) | few | dict.fromkeys(self.numbers, pa.float64())


@dataclass(frozen=True)
class Check:
    """One thing that must hold in every row of a column."""

    column: str
    bad: NDArray[np.bool_]
    expected: str
    """In the first bad row."""
    advice: str
    names: Sequence[str] = ()
    """What may have been meant there."""


def refuse_first(path: Path, table: pa.Table, checks: Sequence[Check]) -> None:
    """Raise for the first row that fails a check; of several checks, the first in order."""
    failed = [(int(np.argmax(check.bad)), i) for i, check in enumerate(checks) if check.bad.any()]
    if not failed:
        return
    row, i = min(failed)
    check = checks[i]
    value = table[check.column][row].as_py()
    near = difflib.get_close_matches(str(value), check.names, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    raise InputError(f"{cell(path, row, check.column, value)}, expected {check.expected}. {hint}{check.advice}")


def read_table(path: Path, layout: Layout) -> pa.Table:
    """The file as a table with the columns in order, labels dictionary-encoded or text, numbers as float64."""
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file. Give the path of a CSV or Parquet file.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Give a readable CSV or Parquet file.") from None
    if not head:
        raise InputError(f"{path}: is empty, expected a header and rows. Give a CSV or Parquet file of {layout.what}.")
    if head[:4] == b"PAR1":
        return _read_parquet(path, layout)
    if b"\0" in head or path.suffix.lower() in (".parquet", ".pq"):
        raise InputError(f"{path}: is neither CSV nor Parquet. Save the {layout.what} as UTF-8 CSV or as Parquet.")
    first_line = head.decode("utf-8-sig", errors="replace").splitlines()[0]
    _check_header(path, layout, next(csv.reader([first_line]), []))
    try:
        return pacsv.read_csv(path, convert_options=_convert(layout.types))
    except pa.ArrowInvalid as error:
        _refuse_csv(path, layout, error)


def _convert(types: Mapping[str, pa.DataType]) -> pacsv.ConvertOptions:
    return pacsv.ConvertOptions(column_types=dict(types), null_values=[""], strings_can_be_null=True)


def _check_header(path: Path, layout: Layout, names: Sequence[str]) -> None:
    for name in names:
        if name not in layout.known:
            near = difflib.get_close_matches(name, layout.known, n=1)
            advice = f"Did you mean '{near[0]}'?" if near else "Remove or rename it; separate columns by commas."
            raise InputError(
                f"{path}: column {name!r} is unknown, expected columns {', '.join(layout.known)}. {advice}"
            )
        if list(names).count(name) > 1:
            raise InputError(f"{path}: column '{name}' occurs more than once, expected once. Remove one of them.")
    missing = [name for name in layout.columns if name not in names]
    if missing:
        wanted = ", ".join(layout.columns)
        raise InputError(f"{path}: column '{missing[0]}' is missing, expected {wanted}. Add the column.")


def _refuse_csv(path: Path, layout: Layout, error: Exception) -> NoReturn:
    """Find the row that the fast reader choked on, by reading everything as text."""
    ragged: list[Any] = []
    try:
        text = pacsv.read_csv(
            path,
            read_options=pacsv.ReadOptions(use_threads=False),
            parse_options=pacsv.ParseOptions(invalid_row_handler=lambda row: ragged.append(row) or "skip"),
            convert_options=_convert(dict.fromkeys(layout.known, pa.string())),
        )
    except pa.ArrowInvalid as reason:
        raise InputError(f"{path}: cannot be read as CSV ({reason}). Save it as UTF-8 CSV or as Parquet.") from None
    if ragged:
        row = ragged[0]
        raise InputError(
            f"{path}: row {row.number - 1} has {row.actual_columns} columns, expected {row.expected_columns} as in "
            "the header. Mend the row; numbers have no thousands separator."
        )
    faults = [(_first_non_number(text[name]), name) for name in layout.numbers if name in text.column_names]
    row, name = min((fault for fault in faults if fault[0] < text.num_rows), default=(-1, ""))
    if row < 0:
        raise InputError(f"{path}: cannot be read as CSV ({error}). Save it as UTF-8 CSV or as Parquet.")
    raise InputError(f"{cell(path, row, name, text[name][row].as_py())}, expected a number. Write it like -1234.5.")


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


def _read_parquet(path: Path, layout: Layout) -> pa.Table:
    try:
        with papq.ParquetFile(path, read_dictionary=list(layout.labels)) as file:
            _check_header(path, layout, file.schema_arrow.names)
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error}). Write the file anew.") from None
    for i, name in enumerate(table.column_names):
        kind = table.schema.field(name).type
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        whole, null = pa.types.is_integer(plain), pa.types.is_null(plain)
        number = whole or pa.types.is_floating(plain) or pa.types.is_decimal(plain)
        text = pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain)
        if name in layout.numbers:
            right, expected = number, "numbers"
        else:
            right, expected = text or (whole and name == "account"), "text"
        if not (right or null):
            raise InputError(f"{path}: column '{name}' is of type {kind}, expected {expected}. Convert the column.")
        if name in layout.numbers:
            table = table.set_column(i, name, table[name].cast(plain).cast(pa.float64(), safe=False))
        elif null or pa.types.is_string_view(plain):
            table = table.set_column(i, name, table[name].cast(pa.string()))
    return table


def codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], pa.Array]:
    """Each row as an index into the distinct values, and those; an empty cell points just past them."""
    encoded = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    chunk = encoded.combine_chunks()
    which = chunk.indices
    if which.null_count:
        which = which.cast(pa.int32()).fill_null(len(chunk.dictionary))
    return which.to_numpy(zero_copy_only=False).astype(np.int32, copy=False), chunk.dictionary


def lookup(column: pa.ChunkedArray, names: Sequence[str]) -> NDArray[np.int32]:
    """Each row as an index into `names`; -1 where it is none of them."""
    which, values = codes(column)
    index = {name: i for i, name in enumerate(names)}
    return np.array([index.get(value, -1) for value in [*values.to_pylist(), None]], dtype=np.int32)[which]


def floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column of numbers; NaN in an empty cell, 1 where the column is absent."""
    return table[name].to_numpy() if name in table.column_names else np.ones(table.num_rows)


def blank(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Where a cell is empty."""
    if pa.types.is_integer(column.type):
        return column.is_null().to_numpy()
    return pc.call_function("equal", [column, pa.scalar("", column.type)]).fill_null(True).to_numpy()


def cell(path: Path, row: int, column: str, value: Any) -> str:
    """A cell and what is in it, as messages begin; `row` counts from 0."""
    return f"{path}: row {row + 1}: {column} is {'empty' if value in (None, '') else repr(value)}"


def one_of(names: Collection[str]) -> str:
    """The names to choose from, in words."""
    return f"one of {', '.join(names)}"
