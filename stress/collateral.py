"""Whose positions a run follows: rows on isolated margin, and accounts on cross margin with their collateral."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stress.cross import CrossAccounts, joined, one_by_one
from stress.netting import net_legs
from stress.portfolio import Positions, Sheet, Terms, read_positions
from stress.spec import InputError
from stress.tables import Check, Layout, blank, cell, codes, floats, lookup, one_of, read_table, refuse_first
from stress.venues import CASH

_LAYOUT = Layout(
    what="collateral",
    columns=("venue", "account", "token", "amount"),
    labels=("venue", "token"),
    numbers=("amount",),
)


@dataclass(frozen=True)
class AllAccounts:
    """The accounts of a run, by the engine that follows them."""

    ladder: Positions
    """Accounts of one linear position and USD alone."""
    row: NDArray[np.int64] | None
    """Row of each of them in its file, counted from 0; the same as its place where absent."""
    cross: CrossAccounts | None
    """All others, where there are any."""
    single: NDArray[np.bool_] | None = None
    """Which of the first are accounts on cross margin with one position; none where absent."""

    def apart(self, venues: NDArray[np.bool_], assets: int) -> AllAccounts:
        """The same, with all accounts at some venues among those that are followed one by one.

        Args:
            venues: Which, shape (V).
            assets: Number of assets.
        """
        chosen = venues[self.ladder.venue]
        if not chosen.any():
            return self
        row = np.arange(len(self.ladder)) if self.row is None else self.row
        moved = one_by_one(self.ladder.where(chosen), row[chosen], assets)
        return AllAccounts(
            self.ladder.where(~chosen),
            row[~chosen],
            moved if self.cross is None else joined(self.cross, moved),
            None if self.single is None else self.single[~chosen],
        )


@dataclass(frozen=True)
class _Names:
    """Accounts on cross margin, by venue and name, in the order of their first rows."""

    values: pa.Array
    """Distinct names."""
    order: NDArray[np.int64]
    """Keys of the accounts, ascending: index of the name x number of venues + venue."""
    account: NDArray[np.int64]
    """Account of each of these keys."""
    venues: int

    def find(self, venue: NDArray[np.int32], name: pa.ChunkedArray) -> NDArray[np.int64]:
        """Account of each venue and name; -1 where there is none."""
        value = pc.call_function("index_in", [name], pc.SetLookupOptions(self.values)).fill_null(-1).to_numpy()
        key = value.astype(np.int64) * self.venues + venue
        place = np.minimum(np.searchsorted(self.order, key), len(self.order) - 1)
        return np.where((value >= 0) & (venue >= 0) & (self.order[place] == key), self.account[place], -1)


def read_accounts(
    positions: Path | str,
    collateral: Path | str | None,
    venues: Mapping[str, Terms],
    assets: Sequence[str],
    *,
    single_on_ladders: bool = True,
) -> AllAccounts:
    """Read and check positions and collateral.

    All rows of one venue and account name with `mode = cross` are one account. Its long and its short in one market are
    netted, with the profit of the hedged part in its cash, or in its coins where the contract is inverse.

    Args:
        positions: File of positions, as `read_positions` takes it.
        collateral: CSV or Parquet file with the columns `venue, account, token, amount`; token `USD` is cash, others
            are assets of the run that the venue takes [coins]. Needed where an account is on cross margin.
        venues: Terms of the venues.
        assets: Names of the assets.
        single_on_ladders: Whether an account on cross margin with one linear position and USD alone is followed as a
            ladder position, which it equals, and not among the others.

    Raises:
        InputError: A file or its first offending row is wrong; the message names row, column, value and remedy.
    """
    sheet = read_positions(positions, venues, assets)
    if not sheet.cross.any():
        if collateral is not None:
            raise InputError(
                f"{collateral}: is the collateral of accounts on cross margin, expected rows with mode 'cross' in "
                f"{sheet.path}. Leave out portfolio.collateral, or correct the mode of the rows."
            )
        return AllAccounts(sheet.rows, None, None)
    rows = np.flatnonzero(sheet.cross)
    names, owner = _names(sheet, rows, len(venues))
    first = rows[np.unique(owner, return_index=True)[1]]
    _refuse_mixed(sheet, names, first, list(venues))
    _refuse_counts(sheet, rows, first[owner])
    cash, coins = _read_collateral(collateral, sheet, names, first, venues, assets)
    cross = _netted(sheet, rows, owner, first, cash, coins, venues, assets)
    single = np.zeros(len(first), bool)
    if single_on_ladders:
        single = (np.count_nonzero(cross.quantity, axis=1) == 1) & ~coins.any(axis=1)
    return _divide(sheet, cross, single)


def _netted(
    sheet: Sheet,
    rows: NDArray[np.int64],
    owner: NDArray[np.int64],
    first: NDArray[np.int64],
    cash: NDArray[np.float64],
    coins: NDArray[np.float64],
    venues: Mapping[str, Terms],
    assets: Sequence[str],
) -> CrossAccounts:
    """One account of the rows of each owner, with one position a market; those that cannot be are refused."""
    of_venue = np.array([[asset in terms.inverse for asset in assets] for terms in venues.values()])
    inverse, asset = of_venue[sheet.rows.venue[first]], sheet.rows.asset[rows]
    legs = net_legs(owner, asset, sheet.rows.quantity[rows], sheet.rows.entry_price[rows], inverse)
    held = coins + np.where(inverse, legs.profit, 0.0)
    flat = ~legs.quantity.any(axis=1)
    if flat.any():
        row = int(first[np.argmax(flat)])
        name, place = sheet.account[row].as_py(), list(venues)[int(sheet.rows.venue[row])]
        raise InputError(
            f"{cell(sheet.path, row, 'account', name)} on cross margin at '{place}', whose longs and shorts are equal, "
            "expected a position that is left when they are netted. Leave its rows out: it cannot be liquidated."
        )
    bare = inverse & (((legs.quantity != 0) & (held <= 0)) | (held < 0))
    if bare[owner, asset].any():
        place = int(np.argmax(bare[owner, asset]))
        row, own, token = int(rows[place]), owner[place], asset[place]
        name, venue = sheet.account[row].as_py(), list(venues)[int(sheet.rows.venue[row])]
        short = " and the profit of its hedged part" if legs.profit[own, token] else ""
        raise InputError(
            f"{cell(sheet.path, row, 'asset', assets[token])}, an inverse contract without coin collateral: account "
            f"{name!r} at '{venue}' has {held[own, token]:g} {assets[token]}{short}, expected more than 0. Give its "
            "coins in portfolio.collateral."
        )
    return CrossAccounts(
        venue=sheet.rows.venue[first],
        quantity=legs.quantity,
        entry_price=legs.entry_price,
        cash=cash + np.where(inverse, 0.0, legs.profit).sum(axis=1),
        count=sheet.rows.count[first],
        row=first,
        coins=held,
    )


def _divide(sheet: Sheet, cross: CrossAccounts, single: NDArray[np.bool_]) -> AllAccounts:
    """Isolated rows and `single` accounts onto ladders, the others apart."""
    moved, chosen = cross.where(single), ~sheet.cross
    chosen[moved.row] = True
    row = np.flatnonzero(chosen)
    columns = {field.name: getattr(sheet.rows, field.name)[row] for field in fields(Positions)}
    asset = np.argmax(moved.quantity != 0, axis=1)
    leg, place = (np.arange(len(asset)), asset), np.searchsorted(row, moved.row)
    columns["asset"][place], columns["margin"][place] = asset, moved.cash
    columns["quantity"][place], columns["entry_price"][place] = moved.quantity[leg], moved.entry_price[leg]
    ladder = Positions(**columns)
    return AllAccounts(ladder, row, None if single.all() else cross.where(~single), sheet.cross[row])


def _names(sheet: Sheet, rows: NDArray[np.int64], venues: int) -> tuple[_Names, NDArray[np.int64]]:
    """The accounts on cross margin, and to which of them each of their rows belongs."""
    which, values = codes(_text(sheet.account.take(rows)))
    key = which.astype(np.int64) * venues + sheet.rows.venue[rows]
    order, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    account = np.empty(len(order), np.int64)
    account[np.argsort(first)] = np.arange(len(order))
    return _Names(values, order, account, venues), account[inverse]


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Names of accounts as text, so that a number in one file is the same account as its digits in the other."""
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    return plain.cast(pa.string())


def _refuse_mixed(sheet: Sheet, names: _Names, first: NDArray[np.int64], venues: Sequence[str]) -> None:
    """Raise where an isolated row has the venue and name of an account on cross margin."""
    rows = np.flatnonzero(~sheet.cross)
    if not len(rows):
        return
    account = names.find(sheet.rows.venue[rows], _text(sheet.account.take(rows)))
    if np.all(account < 0):
        return
    bad = int(np.argmax(account >= 0))
    row, other = int(rows[bad]), int(first[account[bad]])
    name, place = sheet.account[row].as_py(), venues[int(sheet.rows.venue[row])]
    raise InputError(
        f"{cell(sheet.path, row, 'mode', 'isolated')}, expected 'cross' as in row {other + 1}, also of account "
        f"{name!r} at '{place}'. Correct one of them, or rename the account of the isolated position."
    )


def _refuse_counts(sheet: Sheet, rows: NDArray[np.int64], first: NDArray[np.int64]) -> None:
    """Raise where the rows of an account do not stand for equally many copies."""
    count = sheet.rows.count
    differs = count[rows] != count[first]
    if not differs.any():
        return
    bad = int(np.argmax(differs))
    row, name = int(rows[bad]), sheet.account[int(rows[bad])].as_py()
    where, other = cell(sheet.path, row, "count", float(count[row])), int(first[bad])
    raise InputError(
        f"{where}, expected {count[other]:g} as in row {other + 1}, also of account {name!r} on cross margin. "
        "Correct one of them."
    )


def _read_collateral(
    path: Path | str | None,
    sheet: Sheet,
    names: _Names,
    first: NDArray[np.int64],
    venues: Mapping[str, Terms],
    assets: Sequence[str],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cash of each account on cross margin [USD], and its coins, shape (n, A)."""
    places = list(venues)
    if path is None:
        row = int(first[0])
        name, place = sheet.account[row].as_py(), places[int(sheet.rows.venue[row])]
        raise InputError(
            f"{cell(sheet.path, row, 'mode', 'cross')}, expected the collateral of account {name!r} at '{place}' in a "
            "file. Name the file in portfolio.collateral."
        )
    path = Path(path)
    table = read_table(path, _LAYOUT)
    tokens = (CASH, *assets)
    venue, token, amount = lookup(table["venue"], places), lookup(table["token"], tokens), floats(table, "amount")
    owner = names.find(venue, _text(table["account"]))
    taken = np.array([[token in (CASH, *terms.tokens) for token in tokens] for terms in venues.values()])
    foreign = (venue >= 0) & (token >= 0) & ~taken[venue, token]
    place = places[int(venue[np.argmax(foreign)]) if foreign.any() else 0]
    here = one_of((CASH, *venues[place].tokens)) if venues[place].tokens else CASH
    having = f"an account with positions on cross margin at that venue in {sheet.path}"
    checks = (
        Check("venue", venue < 0, one_of(places), "Correct it, or add the venue to the run.", places),
        Check("account", blank(table["account"]), "a name or a number", "Name the account."),
        Check("account", owner < 0, having, "Correct it, or take the row out."),
        Check("token", token < 0, f"{one_of(tokens)}: cash, or an asset of the run, which has a price",
              "Correct it, or add the asset to the run.", tokens),
        Check("amount", ~np.isfinite(amount), "a number of USD or of coins", "Fill in the number."),
        Check("amount", (token > 0) & (amount < 0), "coins of at least 0: only USD may be owed", "Correct it."),
        Check("token", foreign, f"{here}, what '{place}' takes as collateral",
              "Correct it, or give the token a haircut in the haircuts of the venue."),
    )  # fmt: skip
    refuse_first(path, table, checks)
    _refuse_repeats(path, table, owner * len(tokens) + token)
    given = np.bincount(owner, minlength=len(first)) > 0
    if not given.all():
        row = int(first[np.argmin(given)])
        name, place = sheet.account[row].as_py(), places[int(sheet.rows.venue[row])]
        raise InputError(
            f"{cell(sheet.path, row, 'account', name)} on cross margin at '{place}' without cash and without "
            f"collateral, expected a row for it in {path}. Add one; the token of cash is {CASH}."
        )
    held = np.zeros((len(first), len(tokens)))
    held[owner, token] = amount
    return held[:, 0], held[:, 1:]


def _refuse_repeats(path: Path, table: pa.Table, key: NDArray[np.int64]) -> None:
    """Raise where venue, account and token are those of an earlier row."""
    later = np.ones(len(key), dtype=bool)
    later[np.unique(key, return_index=True)[1]] = False
    if not later.any():
        return
    row = int(np.argmax(later))
    before = int(np.argmax(key == key[row]))
    what = {name: table[name][row].as_py() for name in ("venue", "account", "token")}
    raise InputError(
        f"{cell(path, row, 'token', what['token'])} with venue {what['venue']!r} and account {what['account']!r} as in "
        f"row {before + 1}, expected one row for each venue, account and token. Add the amounts up in one row."
    )
