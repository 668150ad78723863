"""Positions files: what is read, and what is refused with which words."""

from __future__ import annotations

import decimal
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as papq
import pytest

from stress import portfolio
from stress.portfolio import Positions, Terms, read_positions
from stress.spec import InputError

ASSETS = ("BTC", "ETH", "SOL")
VENUES = {"binance": Terms(("BTC", "ETH", "SOL"), nets=False), "okx": Terms(("BTC", "ETH"))}
HEADER = "venue,account,asset,quantity,entry_price,margin,mode,count\n"
GOOD = "okx,7,ETH,-2.5,4100,1000,isolated,3\nbinance,7,BTC,0.5,112000.5,-20,isolated,1\nokx,7,BTC,1e-3,9,8,isolated,1\n"


def read(path: Path) -> Positions:
    return read_positions(path, VENUES, ASSETS).rows


def write(folder: Path, text: str) -> Path:
    path = folder / "positions.csv"
    path.write_text(text, encoding="utf-8")
    return path


def assert_same(one: Positions, two: Positions) -> None:
    for name in ("venue", "asset", "quantity", "entry_price", "margin", "count"):
        a, b = getattr(one, name), getattr(two, name)
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype == (np.int32 if name in ("venue", "asset") else np.float64)


def test_csv_becomes_arrays(tmp_path: Path) -> None:
    positions = read(write(tmp_path, HEADER + GOOD))
    assert len(positions) == 3
    assert positions.venue.tolist() == [1, 0, 1]
    assert positions.asset.tolist() == [1, 0, 0]
    assert positions.quantity.tolist() == [-2.5, 0.5, 1e-3]
    assert positions.entry_price.tolist() == [4100.0, 112000.5, 9.0]
    assert positions.margin.tolist() == [1000.0, -20.0, 8.0]
    assert positions.count.tolist() == [3.0, 1.0, 1.0]


def test_count_is_optional_and_columns_may_come_in_any_order(tmp_path: Path) -> None:
    text = "\ufeffmode,margin,entry_price,quantity,asset,account,venue\nisolated,5,100,-1,BTC,a b,okx\n"
    positions = read(write(tmp_path, text))
    assert (positions.count.tolist(), positions.quantity.tolist(), positions.venue.tolist()) == ([1.0], [-1.0], [1])


BAD_ROWS = {
    "unknown venue": (
        "okz,1,BTC,1,1,1,isolated,1",
        "venue is 'okz', expected one of binance, okx. Did you mean 'okx'?",
    ),
    "no venue": (",1,BTC,1,1,1,isolated,1", "venue is empty, expected one of"),
    "asset not listed there": (
        "okx,1,SOL,1,1,1,isolated,1",
        "asset is 'SOL', expected one of BTC, ETH, the markets of",
    ),
    "unknown asset": ("okx,1,BTX,1,1,1,isolated,1", "asset is 'BTX'"),
    "no account": ("okx,,BTC,1,1,1,isolated,1", "account is empty, expected a name or a number"),
    "margin on cross": ("okx,1,BTC,1,1,5,cross,1", "margin is 5.0, expected an empty cell where mode is 'cross'"),
    "bad mode": ("okx,1,BTC,1,1,1,Isolated,1", "mode is 'Isolated', expected 'isolated' or 'cross'. Correct it."),
    "zero quantity": ("okx,1,BTC,0,1,1,isolated,1", "quantity is 0.0, expected coins other than 0"),
    "NaN quantity": ("okx,1,BTC,nan,1,1,isolated,1", "quantity is nan, expected coins"),
    "endless quantity": ("okx,1,BTC,-inf,1,1,isolated,1", "quantity is -inf, expected coins"),
    "no quantity": ("okx,1,BTC,,1,1,isolated,1", "quantity is empty, expected coins"),
    "price of zero": ("okx,1,BTC,1,0,1,isolated,1", "entry_price is 0.0, expected a price above 0 USD per coin"),
    "price below zero": ("okx,1,BTC,1,-3,1,isolated,1", "entry_price is -3.0, expected a price above 0"),
    "NaN price": ("okx,1,BTC,1,NaN,1,isolated,1", "entry_price is nan"),
    "no margin": ("okx,1,BTC,1,1,,isolated,1", "margin is empty, expected the margin in USD of an isolated position"),
    "NaN margin": ("okx,1,BTC,1,1,nan,isolated,1", "margin is nan"),
    "count of zero": ("okx,1,BTC,1,1,1,isolated,0", "count is 0.0, expected a whole number of at least 1"),
    "count below zero": ("okx,1,BTC,1,1,1,isolated,-2", "count is -2.0, expected a whole number"),
    "count not whole": ("okx,1,BTC,1,1,1,isolated,1.5", "count is 1.5, expected a whole number"),
    "no count": ("okx,1,BTC,1,1,1,isolated,", "count is empty, expected a whole number"),
    "text for a number": ("okx,1,BTC,1,1,ten,isolated,1", "margin is 'ten', expected a number. Write it like -1234.5."),
    "repeated": ("okx,7,ETH,1,1,1,isolated,1", "account is '7' with venue 'okx' and asset 'ETH' as in row 1"),
    "too few columns": ("okx,1,BTC,1,1,1,isolated", "has 7 columns, expected 8 as in the header"),
    "thousands": ("okx,1,BTC,1,1,1,000,isolated,1", "has 9 columns, expected 8 as in the header"),
}


@pytest.mark.parametrize("row, message", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path, f"{HEADER}{GOOD}{row}\nokx,99,BTC,1,1,1,isolated,1\n")
    with pytest.raises(InputError) as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: row 4") and message in text
    assert "\n" not in text and text.endswith((".", "?"))


@pytest.mark.parametrize(
    "early, late",
    [(a, b) for a, b in itertools.permutations(("margin on cross", "NaN margin", "count not whole", "no venue"), 2)],
)
def test_the_first_bad_row_is_named_whichever_column_it_is_in(tmp_path: Path, early: str, late: str) -> None:
    path = write(tmp_path, f"{HEADER}{GOOD}{BAD_ROWS[early][0]}\n{BAD_ROWS[late][0]}\n")
    with pytest.raises(InputError) as caught:
        read(path)
    assert f"row 4: {BAD_ROWS[early][1]}" in str(caught.value)


@pytest.mark.parametrize("wrong", [0, 1, 62, 63, 1999])
def test_text_for_a_number_is_found_at_any_row(tmp_path: Path, wrong: int) -> None:
    rows = [f"okx,{i},BTC,1,1,{'x1' if i >= wrong else i},isolated,1" for i in range(2000)]
    with pytest.raises(InputError, match=rf"row {wrong + 1}: margin is 'x1'"):
        read(write(tmp_path, HEADER + "\n".join(rows) + "\n"))


BAD_FILES = {
    "empty": ("", "is empty"),
    "no rows": (HEADER, "has no rows"),
    "missing column": ("venue,account,asset,quantity,entry_price,mode\n", "column 'margin' is missing, expected venue"),
    "misspelt column": (HEADER.replace("entry_price", "entry"), "column 'entry' is unknown, expected columns venue"),
    "unknown column": (
        HEADER.replace(",count", ",zzz"),
        "'zzz' is unknown, .* Remove or rename it; separate columns by",
    ),
    "column twice": (HEADER.replace(",count", ",margin"), "column 'margin' occurs more than once"),
    "semicolons": (HEADER.replace(",", ";") + GOOD.replace(",", ";"), "separate columns by commas"),
}


@pytest.mark.parametrize("text, message", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(write(tmp_path, text))


def test_files_that_are_not_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path)
    binary = tmp_path / "picture.csv"
    binary.write_bytes(b"\x89PNG\0\0\0")
    with pytest.raises(InputError, match="is neither CSV nor Parquet"):
        read(binary)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read(broken)
    latin = tmp_path / "latin.csv"
    latin.write_bytes((HEADER + GOOD).encode() + b"okx,\xe9t\xe9,BTC,1,1,1,isolated,1\n")
    with pytest.raises(InputError, match="Save it as UTF-8 CSV"):
        read(latin)


def columns() -> dict[str, list]:
    return {
        "venue": ["okx", "binance", "okx"],
        "account": [7, 7, 7],
        "asset": ["ETH", "BTC", "BTC"],
        "quantity": [-2.5, 0.5, 1e-3],
        "entry_price": [4100, 112000.5, 9],
        "margin": [1000, -20, 8],
        "mode": ["isolated"] * 3,
        "count": [3, 1, 1],
    }


TEXT = [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.string_view()]
ACCOUNT = [*TEXT, pa.int16(), pa.int64(), pa.uint64(), pa.dictionary(pa.int8(), pa.int32())]


@pytest.mark.parametrize(
    "labels, account", [(kind, pa.string()) for kind in TEXT] + [(pa.string(), k) for k in ACCOUNT]
)
def test_parquet_and_csv_agree_whatever_the_type(tmp_path: Path, labels: pa.DataType, account: pa.DataType) -> None:
    data = columns()
    number = pa.types.is_integer(getattr(account, "value_type", account))
    base = account.value_type if pa.types.is_dictionary(account) else account
    names = data["account"] if number else [str(value) for value in data["account"]]
    arrays = {name: pa.array(values) for name, values in data.items() if name != "account"}
    for name in ("venue", "asset", "mode"):
        plain = pa.array(data[name], pa.string())
        arrays[name] = plain.dictionary_encode() if pa.types.is_dictionary(labels) else plain.cast(labels)
    arrays["account"] = pa.array(names, base).dictionary_encode() if base != account else pa.array(names, base)
    arrays["quantity"] = pa.array([decimal.Decimal(str(value)) for value in data["quantity"]])
    path = tmp_path / "positions.parquet"
    papq.write_table(pa.table(arrays), path, row_group_size=1)
    assert_same(read(path), read(write(tmp_path, HEADER + GOOD)))
    arrays["venue"], arrays["asset"] = (pa.array([name] * 3) for name in ("okx", "BTC"))
    papq.write_table(pa.table(arrays), path, row_group_size=1)
    with pytest.raises(InputError, match=r"row 2: account is '?7'? with venue 'okx' and asset 'BTC' as in row 1"):
        read(path)


@pytest.mark.parametrize(
    "name, values, message",
    [
        ("quantity", ["1", "2", "3"], "column 'quantity' is of type string, expected numbers. Convert the column."),
        ("count", [True, True, True], "column 'count' is of type bool, expected numbers"),
        ("venue", [1, 2, 3], "column 'venue' is of type int64, expected text"),
        ("account", [1.0, 2.0, 3.0], "column 'account' is of type double, expected text"),
        ("margin", [1.0, None, 2.0], "row 2: margin is empty, expected the margin"),
        ("margin", [None, None, None], "row 1: margin is empty"),
        ("mode", [None, None, None], "row 1: mode is empty"),
        ("account", [7, 8, None], "row 3: account is empty"),
        ("account", ["7", "8", ""], "row 3: account is empty"),
        ("entry_price", [1, 2, -3], "row 3: entry_price is -3.0, expected a price above 0"),
    ],
)
def test_parquet_refusals(tmp_path: Path, name: str, values: list, message: str) -> None:
    path = tmp_path / "positions.parquet"
    papq.write_table(pa.table(columns() | {name: values}), path)
    with pytest.raises(InputError, match=message):
        read(path)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_fingerprints_tell_accounts_apart(kind: pa.DataType) -> None:
    rng = np.random.default_rng(1)
    letters = np.array(list("ab\0é0"))[rng.integers(0, 5, (40_000, 12))]
    names = ["".join(row[:length]) for row, length in zip(letters, rng.integers(1, 13, 40_000), strict=True)]
    column = pa.chunked_array([pa.array(["dropped", *names[:30_000]], kind).slice(1), pa.array(names[30_000:], kind)])
    prints = portfolio._fingerprints(column)
    assert len(np.unique(prints)) == len(set(names))
    of_name = dict(zip(names, prints.tolist(), strict=True))
    assert [of_name[name] for name in names] == prints.tolist()


def test_a_fingerprint_shared_by_chance_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portfolio, "_fingerprints", lambda column: np.zeros(len(column), dtype=np.uint64))
    assert len(read(write(tmp_path, HEADER + GOOD + GOOD.replace(",7,", ",8,")))) == 6
    with pytest.raises(InputError, match="row 6: account is '8' with venue 'okx' and asset 'BTC' as in row 5"):
        read(write(tmp_path, HEADER + GOOD + "okx,8,ETH,1,1,1,isolated,1\n" + "okx,8,BTC,1,1,1,isolated,1\n" * 2))


INVERSE = {"okx": Terms(("BTC", "ETH"), inverse=("BTC",)), "strict": Terms(("BTC",), nets=False)}


def test_an_inverse_contract_on_isolated_margin_is_refused(tmp_path: Path) -> None:
    rows = "okx,1,ETH,1,9,8,isolated,1\nokx,1,BTC,100,9,,cross,1\nokx,2,BTC,100,9,8,isolated,1\n"
    path = write(tmp_path, HEADER + rows)
    with pytest.raises(InputError) as caught:
        read_positions(path, INVERSE, ASSETS)
    assert str(caught.value) == (
        f"{path}: row 3: mode is 'isolated', expected 'cross' for an inverse contract, as 'okx' lists on BTC. "
        "Leave its margin empty, and give its coins in portfolio.collateral."
    )


LONG, SHORT = "1,BTC,2,9,,cross,1", "1,BTC,-1,8,,cross,1"


def test_a_long_and_a_short_on_cross_margin_are_read_where_the_venue_nets_them(tmp_path: Path) -> None:
    sheet = read_positions(write(tmp_path, f"{HEADER}okx,{LONG}\nokx,{SHORT}\n"), INVERSE, ASSETS)
    assert sheet.rows.quantity.tolist() == [2, -1]


REPEATS = {
    "two longs": (
        [f"okx,{LONG}", f"okx,{SHORT}", f"okx,{LONG}"],
        "row 3: account is '1' .* expected one row for each venue, account, asset and side\\. Net the rows",
    ),
    "a venue that does not net": (
        [f"strict,{LONG}", f"strict,{SHORT}"],
        "row 2: .* and asset; maintenance on both legs of a hedge, as 'strict' wants it, is not modelled\\. Net",
    ),
    "two longs where it does not net": (
        [f"strict,{LONG}", f"strict,{LONG}"],
        "row 2: account is '1' .* expected one row for each venue, account and asset\\. Net the rows",
    ),
    "isolated": (
        ["okx,1,ETH,1,9,5,isolated,1", "okx,1,ETH,-1,9,5,isolated,1"],
        "row 2: account is '1' .* expected one row for each venue, account and asset\\. Net the rows",
    ),
}


@pytest.mark.parametrize("name", REPEATS)
def test_other_repeats_are_refused(tmp_path: Path, name: str) -> None:
    rows, words = REPEATS[name]
    with pytest.raises(InputError, match=words):
        read_positions(write(tmp_path, HEADER + "\n".join(rows) + "\n"), INVERSE, ASSETS)
