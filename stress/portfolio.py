"""Positions read from a CSV or Parquet file, on isolated or on cross margin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stress.spec import InputError
from stress.tables import Check, Layout, blank, cell, codes, floats, lookup, one_of, read_table, refuse_first

_NUMBERS = ("quantity", "entry_price", "margin", "count")
_LAYOUT = Layout(
    what="positions",
    columns=("venue", "account", "asset", "quantity", "entry_price", "margin", "mode"),
    labels=("venue", "asset", "mode"),
    numbers=_NUMBERS,
    optional=("count",),
)
_ODD = np.uint64(0x9E3779B97F4A7C15)
_ODD_INVERSE = np.uint64(pow(int(_ODD), -1, 1 << 64))


@dataclass(frozen=True)
class Terms:
    """What files of positions and collateral may say at one venue; assets are those of the run."""

    markets: Sequence[str]
    """Assets that it lists."""
    inverse: Sequence[str] = ()
    """Those of them whose contracts are inverse."""
    tokens: Sequence[str] = ()
    """Assets that it takes as collateral on cross margin, besides USD."""
    nets: bool = True
    """Whether a long and a short of one account in one market are netted; else they are refused."""


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

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Positions:
        """Some of the positions, or those at these places, in the order given."""
        return Positions(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


@dataclass(frozen=True)
class Sheet:
    """A file of positions, every row of it checked."""

    path: Path
    rows: Positions
    """All rows; the margin of those on cross margin is NaN, the quantity of an inverse contract in USD."""
    cross: NDArray[np.bool_]
    """Which rows are on cross margin."""
    account: pa.ChunkedArray
    """Names of their accounts."""


def read_positions(path: Path | str, venues: Mapping[str, Terms], assets: Sequence[str]) -> Sheet:
    """Read a file of positions and check each row by itself.

    Columns: `venue, account, asset, quantity` [coins, signed; USD, signed, of an inverse contract], `entry_price`
    [USD/coin], `margin` [USD], `mode` (`isolated`, or `cross` with an empty margin), and optionally `count` (whole, 1
    where the column is absent). Positions in inverse contracts are on cross margin, their coins in the collateral.

    Args:
        path: CSV (comma-separated, UTF-8, with a header) or Parquet file.
        venues: Terms of the venues, in the order of `Positions.venue`.
        assets: Names of the assets, in the order of `Positions.asset`.

    Raises:
        InputError: The file or its first offending row is wrong; the message names row, column, value and remedy.
    """
    path = Path(path)
    table = read_table(path, _LAYOUT)
    if table.num_rows == 0:
        raise InputError(f"{path}: has no rows, expected at least one position. Add positions, or use a population.")
    names = list(venues)
    venue, asset = lookup(table["venue"], names), lookup(table["asset"], assets)
    mode = lookup(table["mode"], ("isolated", "cross"))
    positions, cross = Positions(venue, asset, **{name: floats(table, name) for name in _NUMBERS}), mode == 1
    checks = (
        Check("venue", venue < 0, one_of(names), "Correct it, or add the venue to the run.", names),
        *_market_checks(positions, venues, assets, mode == 0),
        Check("account", blank(table["account"]), "a name or a number", "Give each account a name."),
        Check("mode", mode < 0, "'isolated' or 'cross'", "Correct it."),
        *_number_checks(positions, cross),
    )
    refuse_first(path, table, checks)
    _refuse_repeats(path, table, positions, cross, list(venues.values()), len(assets))
    return Sheet(path, positions, cross, table["account"])


def _market_checks(
    positions: Positions, venues: Mapping[str, Terms], assets: Sequence[str], isolated: NDArray[np.bool_]
) -> Iterator[Check]:
    """That the venue lists the asset, and that an inverse contract is on cross margin."""
    names, venue, asset = list(venues), positions.venue, positions.asset
    listed, inverse = np.zeros((2, len(names) + 1, len(assets) + 1), dtype=bool)
    for v, terms in enumerate(venues.values()):
        listed[v, [assets.index(other) for other in terms.markets]] = True
        inverse[v, [assets.index(other) for other in terms.inverse]] = True
    absent = (venue >= 0) & ~listed[venue, asset]
    place = names[int(venue[np.argmax(absent)])]
    here = f"{one_of(venues[place].markets)}, the markets of '{place}' in this run"
    yield Check("asset", absent, here, "Correct it, or add the market to the venue.", venues[place].markets)
    coins = isolated & inverse[venue, asset]
    row = int(np.argmax(coins))
    yield Check(
        "mode",
        coins,
        f"'cross' for an inverse contract, as '{names[int(venue[row])]}' lists on {assets[int(asset[row])]}",
        "Leave its margin empty, and give its coins in portfolio.collateral.",
    )


def _number_checks(positions: Positions, cross: NDArray[np.bool_]) -> Iterator[Check]:
    quantity, price, margin, count = positions.quantity, positions.entry_price, positions.margin, positions.count
    yield Check(
        "quantity",
        ~np.isfinite(quantity) | (quantity == 0),
        "coins other than 0 (USD of an inverse contract), positive for a long and negative for a short",
        "Correct it, or remove the row.",
    )
    yield Check("entry_price", ~((price > 0) & (price < np.inf)), "a price above 0 USD per coin", "Correct it.")
    yield Check(
        "margin",
        ~(np.isfinite(margin) | cross),
        "the margin in USD of an isolated position",
        "Fill in the number.",
    )
    yield Check(
        "margin",
        cross & ~np.isnan(margin),
        "an empty cell where mode is 'cross'",
        "Empty it, and give the cash of the account in portfolio.collateral.",
    )
    yield Check(
        "count",
        ~((count >= 1) & (count < np.inf) & (np.floor(count) == count)),
        "a whole number of at least 1",
        "Correct it, or leave the column out where every row stands for one account.",
    )


def _refuse_repeats(
    path: Path,
    table: pa.Table,
    positions: Positions,
    cross: NDArray[np.bool_],
    venues: Sequence[Terms],
    n_assets: int,
) -> None:
    """Raise where venue, account and asset are those of an earlier row, but for a long and a short that are netted."""
    market = positions.venue * np.int64(n_assets) + positions.asset
    netted = cross & np.array([terms.nets for terms in venues])[positions.venue]
    market = 2 * market + (netted & (positions.quantity < 0))
    prints = _fingerprints(table["account"]) ^ (market.astype(np.uint64) * _ODD)
    prints.sort()
    if not (prints[1:] == prints[:-1]).any():
        return
    account = codes(table["account"])[0].astype(np.int64)
    key = account * (int(market.max()) + 1) + market
    later = np.ones(len(key), dtype=bool)
    later[np.unique(key, return_index=True)[1]] = False
    if not later.any():
        return
    row = int(np.argmax(later))
    first = int(np.argmax(key == key[row]))
    what = {name: table[name][row].as_py() for name in ("venue", "account", "asset")}
    hedge = cross[row] and cross[first] and positions.quantity[row] * positions.quantity[first] < 0
    why = f"; maintenance on both legs of a hedge, as '{what['venue']}' wants it, is not modelled" if hedge else ""
    kind = "venue, account, asset and side" if netted[row] else "venue, account and asset"
    raise InputError(
        f"{cell(path, row, 'account', what['account'])} with venue {what['venue']!r} and asset {what['asset']!r} as "
        f"in row {first + 1}, expected one row for each {kind}{why}. Net the rows, or rename the account."
    )


def _fingerprints(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """64 bits a cell, the same for the same content; different content hardly ever shares them.

    Text: sum_k (byte_k + 1) odd^k modulo 2^64, by differences of running sums, several times faster than a hash table.
    """
    if pa.types.is_dictionary(column.type):
        return codes(column)[0].astype(np.uint64)
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
