"""A synthetic population: accounts drawn so that their shares of notional, not of heads, follow given distributions.

Rows are spread by a shifted lattice inside each stratum (venue, asset, side, ordinary or high leverage) rather than
drawn independently: two seeds then agree on every share and on what a fall triggers to about a percent.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.special import ndtri

from stress.portfolio import Positions
from stress.spec import Fraction, InputError, NonNegative, Number, Positive, Spec
from stress.triggers import deductions, maintenance

Array = NDArray[np.float64]
Shares = Annotated[dict[str, Fraction], Field(min_length=1)]
_LEAST_ROWS = 32
_PLASTIC = 1.2207440846057596
"""Root of x^4 = x + 1: its inverse powers spread points most evenly in three dimensions."""


class Leverage(Spec):
    """Effective leverage now, notional over equity: lognormal by notional, clipped."""

    median_long: Positive
    """Median over the notional of longs, before the tilt [1]."""
    median_short: Positive
    """Median over the notional of shorts, before the tilt [1]."""
    log_sd: NonNegative
    """Standard deviation of the log of leverage [1]."""
    asset_tilt: dict[str, Positive]
    """Factor on the median, by asset; 1 where absent [1]."""
    minimum: Positive
    """Lower clip [1]."""
    maximum: Positive
    """Upper clip [1]."""
    source: str

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        return _ascending(self, "minimum", "maximum")


class HighLeverage(Spec):
    """A small share of the notional at very high leverage, with young entries: log-uniform by notional."""

    notional_share: Fraction
    """Share of each market side's notional, before drops [1]."""
    minimum: Positive
    """Lowest leverage [1]."""
    maximum: Positive
    """Highest leverage [1]."""
    age_divisor: Positive
    """How many times younger the entries are [1]."""
    source: str

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        return _ascending(self, "minimum", "maximum")


class EntryAge(Spec):
    """Time since entry: exponential, truncated; sets entry prices, now x exp(N(0, sigma sqrt(age)))."""

    mean_hours: Positive
    """Mean of the exponential before truncation [h]."""
    maximum_days: Positive
    """Longest age [d]."""
    source: str


class AccountNotional(Spec):
    """Notional of one account: lognormal over the notional of a market side, smaller at higher leverage."""

    median_usd: Positive
    """Median at the reference leverage [USD]."""
    log_sd: NonNegative
    """Standard deviation of the log [1]."""
    reference_leverage: Positive
    """Leverage at which the median holds [1]."""
    exponent: Number
    """The median goes with (leverage / reference)^exponent [1]."""
    source: str


class Population(Spec):
    """Isolated accounts at all venues, drawn from distributions."""

    open_interest_usd: Positive
    """One-sided open interest of all markets, hedgers who never trade included [USD]."""
    long_share: Fraction
    """Long notional of accounts over the open interest [1]."""
    short_share: Fraction
    """Short notional of accounts over the open interest [1]."""
    asset_shares: Shares
    """Share of notional by asset; sums to 1 [1]."""
    venue_shares: Shares
    """Share of notional by venue, the same for every asset; sums to 1 [1]."""
    leverage: Leverage
    """Of most of the notional."""
    high_leverage: HighLeverage
    """Of a small share of it."""
    entry_age: EntryAge
    """How long ago positions were opened."""
    account_notional: AccountNotional
    """How large accounts are."""
    margin_cushion: Fraction
    """Accounts whose equity is within this share of notional of maintenance, or below it, are left out [1]."""
    rows: Annotated[int, Field(ge=1000, le=100_000_000)]
    """Rows drawn, before those left out; more rows are finer, the money is the same."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    """Of the draw of accounts; not that of the paths."""
    source: str
    """Where the open interest and the shares come from, and when."""

    @model_validator(mode="after")
    def _shares_sum_to_one(self) -> Self:
        for name in ("asset_shares", "venue_shares"):
            total = math.fsum(getattr(self, name).values())
            if abs(total - 1) > 1e-6:
                raise ValueError(f"{name} sum to {total:g}, expected 1. Change the shares.")
        for asset in self.leverage.asset_tilt:
            if asset not in self.asset_shares:
                raise ValueError(f"leverage.asset_tilt names {asset!r}, expected an asset of asset_shares. Correct it.")
        return self

    def draw(
        self,
        venues: Sequence[str],
        assets: Sequence[str],
        start_price: Array,
        daily_volatility: Array,
        floor: Array,
        rate: Array,
    ) -> Positions:
        """The accounts, at the starting prices with every mark at the index.

        Args:
            venues: Names of the run's venues, length V.
            assets: Names of the run's assets, length A.
            start_price: Index prices now [USD], shape (A,).
            daily_volatility: Total daily volatility, for how far entries lie from the price now [1], shape (A,).
            floor: Notional above which each maintenance tier applies; unused tiers are infinite [USD], shape (V, A, J).
            rate: Marginal maintenance rate of each tier [1], shape (V, A, J); not positive where there is no market.

        Returns:
            Positions whose `count` makes up the notional of each venue, asset and side exactly.

        Raises:
            InputError: A share is given to a venue, an asset or a market that the run does not have.
        """
        strata = self._strata(venues, assets, rate)
        rows = _allocate(self.rows, np.array([stratum.notional for stratum in strata]))
        cut = deductions(floor, rate)
        drawn: dict[tuple[int, int, int], list[tuple[Array, ...]]] = {}
        target: dict[tuple[int, int, int], float] = {}
        for stratum, size in zip(strata, rows, strict=True):
            v, a = stratum.venue, stratum.asset
            part = self._stratum(stratum, int(size), start_price[a], daily_volatility[a], rate[v, a], cut[v, a])
            drawn.setdefault((v, a, stratum.side), []).append(part)
            target[v, a, stratum.side] = target.get((v, a, stratum.side), 0.0) + stratum.notional
        return _join(drawn, target, start_price, venues, assets)

    def _strata(self, venues: Sequence[str], assets: Sequence[str], rate: Array) -> list[_Stratum]:
        """Every venue, asset, side and kind of leverage that holds anything, in the order of the run's names."""
        _require_known("venue_shares", self.venue_shares, venues)
        _require_known("asset_shares", self.asset_shares, assets)
        sides = ((1, self.long_share), (-1, self.short_share))
        kinds = ((False, 1 - self.high_leverage.notional_share), (True, self.high_leverage.notional_share))
        strata = []
        for v, venue in enumerate(venues):
            for a, asset in enumerate(assets):
                share = self.venue_shares.get(venue, 0.0) * self.asset_shares.get(asset, 0.0)
                if share > 0 and not rate[v, a, 0] > 0:
                    raise InputError(
                        f"population: asset_shares.{asset} is {self.asset_shares[asset]:g}, expected 0 where venue "
                        f"'{venue}' lists no market in {asset}. Add the market, or take the share away."
                    )
                for (side, held), (high, part) in itertools.product(sides, kinds):
                    notional = self.open_interest_usd * held * share * part
                    if notional > 0:
                        key = zlib.crc32(f"{venue}/{asset}/{side}/{high}".encode())
                        strata.append(_Stratum(v, a, side, high, notional, asset, (self.seed, key)))
        return strata

    def _stratum(
        self, stratum: _Stratum, size: int, price: float, volatility: float, rate: Array, cut: Array
    ) -> tuple[Array, ...]:
        """Signed quantity, entry price, margin and count of one stratum's rows that are kept; equal notional a row."""
        points = _lattice(size, stratum.seed)
        leverage = self._leverages(stratum, points[0])
        size_of = self.account_notional
        notional = ndtri(points[1])
        notional *= size_of.log_sd
        notional += math.log(size_of.median_usd) + size_of.exponent * np.log(leverage / size_of.reference_leverage)
        np.exp(notional, out=notional)
        equity = notional / leverage
        keep = equity - maintenance(notional, rate, cut) > self.margin_cushion * notional
        entry = price * np.exp(ndtri(points[2]) * (volatility * np.sqrt(self._ages(stratum, points[3]))))
        quantity = notional * (stratum.side / price)
        margin = equity - quantity * (price - entry)
        count = stratum.notional / size / notional
        return quantity[keep], entry[keep], margin[keep], count[keep]

    def _leverages(self, stratum: _Stratum, u: Array) -> Array:
        """Leverage at quantile `u` of a stratum's notional."""
        high, usual = self.high_leverage, self.leverage
        if stratum.high:
            return high.minimum * np.exp(u * math.log(high.maximum / high.minimum))
        median = usual.median_long if stratum.side > 0 else usual.median_short
        median *= usual.asset_tilt.get(stratum.asset_name, 1.0)
        return np.clip(median * np.exp(usual.log_sd * ndtri(u)), usual.minimum, usual.maximum)

    def _ages(self, stratum: _Stratum, u: Array) -> Array:
        """Age of the entry at quantile `u` [d]."""
        mean, longest = self.entry_age.mean_hours / 24, self.entry_age.maximum_days
        days = -mean * np.log1p(u * math.expm1(-longest / mean))
        return days / self.high_leverage.age_divisor if stratum.high else days


@dataclass(frozen=True)
class _Stratum:
    """What one block of rows has in common."""

    venue: int
    asset: int
    side: int
    """1 long, -1 short."""
    high: bool
    notional: float
    """Notional before drops [USD]."""
    asset_name: str
    seed: tuple[int, int]


def _join(
    drawn: Mapping[tuple[int, int, int], list[tuple[Array, ...]]],
    target: Mapping[tuple[int, int, int], float],
    start_price: Array,
    venues: Sequence[str],
    assets: Sequence[str],
) -> Positions:
    """All strata in one, the counts of each venue, asset and side scaled up for the rows left out."""
    columns: list[list[Array]] = [[], [], [], []]
    markets = []
    for (v, a, side), parts in drawn.items():
        quantity, entry, margin, count = (np.concatenate(column) for column in zip(*parts, strict=True))
        held = float(np.abs(quantity) @ count) * start_price[a]
        if held <= 0:
            raise InputError(
                f"population: every {'long' if side > 0 else 'short'} in {assets[a]} at venue '{venues[v]}' is too "
                "close to maintenance, expected some that are not. Lower the leverage or the account notional."
            )
        count *= target[v, a, side] / held
        markets.append((v, a, len(count)))
        for column, values in zip(columns, (quantity, entry, margin, count), strict=True):
            column.append(values)
    sizes = [size for _, _, size in markets]
    venue = np.repeat(np.array([v for v, _, _ in markets], dtype=np.int32), sizes)
    asset = np.repeat(np.array([a for _, a, _ in markets], dtype=np.int32), sizes)
    return Positions(venue, asset, *(np.concatenate(column) for column in columns))


def _lattice(size: int, seed: tuple[int, int]) -> tuple[Array, Array, Array, Array]:
    """Points of the open unit cube in four dimensions: an even grid in the first, a Kronecker lattice in the others.

    All are shifted at random modulo 1, so that every coordinate is uniform over seeds.
    """
    shift = np.random.default_rng(seed).random(4)
    index = np.arange(size, dtype=np.float64)
    steps = (1 / size, 1 / _PLASTIC, 1 / _PLASTIC**2, 1 / _PLASTIC**3)
    tiny = 2.0**-40
    first, second, third, fourth = (
        np.clip(np.mod(index * step + start, 1.0), tiny, 1 - tiny) for step, start in zip(steps, shift, strict=True)
    )
    return first, second, third, fourth


def _allocate(rows: int, notional: Array) -> NDArray[np.int64]:
    """Rows of each stratum: in proportion to notional, none below a minimum, `rows` in all."""
    least = min(_LEAST_ROWS, rows // len(notional))
    if least == 0:
        raise InputError(
            f"population: rows is {rows}, expected at least {len(notional)}, one for each venue, asset, side and kind "
            "of leverage. Ask for more rows."
        )
    wanted = least + (rows - least * len(notional)) * notional / notional.sum()
    size = np.floor(wanted).astype(np.int64)
    size[np.argsort(size - wanted, kind="stable")[: rows - int(size.sum())]] += 1
    return size


def _require_known(field: str, shares: Mapping[str, float], names: Sequence[str]) -> None:
    for name in shares:
        if name not in names:
            raise InputError(
                f"population: {field} names {name!r}, expected only {', '.join(names)}. "
                "Add it to the run, or take its share away."
            )


def _ascending[S: Spec](spec: S, low: str, high: str) -> S:
    if getattr(spec, low) >= getattr(spec, high):
        raise ValueError(
            f"{low} is {getattr(spec, low):g} and {high} is {getattr(spec, high):g}, expected {low} below {high}. "
            "Change one."
        )
    return spec
