"""Every number that is reported, declared once: its unit, how it is written, how it is found, and from what."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from stress.intervals import Estimate

Form = Literal["usd", "percent", "signed", "times", "count", "tiny"]
"""How people write it: an amount, a share, a change in per cent, a ratio, a whole number, a rounding error."""

LEVELS = {0.5: "q50", 0.95: "q95", 0.99: "q99", 0.999: "q999"}
"""Endings of the names of quantiles."""

METHODS = {
    "hours": "weighted quantile over all hours of all paths; interval by inverting that of a chance, path as unit",
    "paths": "weighted quantile of one value a path; interval of order statistics, exact under equal weights",
    "chance": "weighted share of paths; Clopper-Pearson interval under equal weights, else approximate",
    "exceedance": "weighted share of all hours; interval with the path as unit",
    "mean": "weighted mean over paths; Student's interval over paths, open above amounts that no path has",
    "shortfall": "weighted mean beyond a quantile; interval from its standard error with skewed critical values",
    "extreme": "largest or lowest value of all paths; no interval",
    "share": "ratio of weighted means over paths; Student's interval of what is linear in both",
    "inverse": "given size over the quantile; interval from that of the quantile",
    "tail": "quantile of a generalised-Pareto tail fitted to one value a path; interval by profile likelihood",
    "cover": "accounts closed one by one along the impact curve at the moves of the worst path for the funds",
    "given": "as the run's config says; no sampling error",
    "paired": "difference from the base on the same paths; interval of the paired difference",
    "file": "as the file given says",
    "counted": "counted or measured in the run",
}
"""By key; the text stands in the disclosure."""


class Quantity(NamedTuple):
    """One kind of number."""

    unit: str
    form: Form
    method: str
    variable: str
    """Variables of the dataset, or tables of the config, that it comes from."""


def _quantiles(stem: str, method: str, variable: str) -> dict[str, Quantity]:
    return {f"{stem}_{end}": Quantity("USD", "usd", method, variable) for end in LEVELS.values()}


_VOLUME, _DRAWDOWN, _SOCIALISED = "liquidation_volume", "fund_drawdown", "socialised_loss"
_NEED, _LOW = "fund_low, socialised_loss", "index_low"

QUANTITIES: Mapping[str, Quantity] = {
    "paths": Quantity("paths", "count", "counted", "path"),
    "failed": Quantity("paths", "count", "counted", "status"),
    "effective_paths": Quantity("paths", "count", "counted", "log_weight"),
    "ledger_residual": Quantity("1", "tiny", "extreme", "ledger_residual"),
    "run_mean": Quantity("USD", "usd", "mean", _VOLUME),
    **_quantiles("hour", "hours", _VOLUME),
    "hour_shortfall": Quantity("USD", "usd", "shortfall", _VOLUME),
    "hour_largest": Quantity("USD", "usd", "extreme", _VOLUME),
    **_quantiles("day", "paths", _VOLUME),
    "chance_hour": Quantity("1", "percent", "chance", _VOLUME),
    "chance_day": Quantity("1", "percent", "chance", _VOLUME),
    "tail_hour_q999": Quantity("USD", "usd", "tail", _VOLUME),
    "tail_day_q999": Quantity("USD", "usd", "tail", _VOLUME),
    "fan_q50": Quantity("USD", "usd", "paths", _VOLUME),
    "fan_q95": Quantity("USD", "usd", "paths", _VOLUME),
    "fan_q99": Quantity("USD", "usd", "paths", _VOLUME),
    "exceedance": Quantity("1", "percent", "exceedance", _VOLUME),
    "share_long": Quantity("1", "percent", "share", _VOLUME),
    "share_asset": Quantity("1", "percent", "share", _VOLUME),
    "share_market": Quantity("1", "percent", "share", _VOLUME),
    "market_hour_q999": Quantity("1", "percent", "paths", "liquidation_volume, config venues.*.markets.*.adv_usd"),
    "interest_market": Quantity("USD", "usd", "mean", "open_interest"),
    "day_of_interest": Quantity("1", "percent", "share", "liquidation_volume, open_interest"),
    "layer_mean": Quantity("USD", "usd", "mean", "absorbed_volume"),
    "layer_share": Quantity("1", "percent", "share", "absorbed_volume"),
    "low_q50": Quantity("1", "signed", "paths", _LOW),
    "low_q01": Quantity("1", "signed", "paths", _LOW),
    "low_q001": Quantity("1", "signed", "paths", _LOW),
    "low_lowest": Quantity("1", "signed", "extreme", _LOW),
    "beyond": Quantity("1", "percent", "chance", _LOW),
    "high_q99": Quantity("1", "signed", "paths", "index_high"),
    "high_q999": Quantity("1", "signed", "paths", "index_high"),
    "fund_size": Quantity("USD", "usd", "given", "config venues.*.pools.*.equity_usd"),
    "fund_size_total": Quantity("USD", "usd", "given", "config venues.*.pools.*.equity_usd"),
    **_quantiles("fall", "paths", _DRAWDOWN),
    "fall_largest": Quantity("USD", "usd", "extreme", _DRAWDOWN),
    "exhausted": Quantity("1", "percent", "chance", "fund_exhausted_hour"),
    "exhausted_any": Quantity("1", "percent", "chance", "fund_exhausted_hour"),
    "deficit_mean": Quantity("USD", "usd", "mean", "deficit"),
    "deficit_hour_q999": Quantity("USD", "usd", "paths", "deficit"),
    "deficit_largest": Quantity("USD", "usd", "extreme", "deficit"),
    "socialised_mean": Quantity("USD", "usd", "mean", _SOCIALISED),
    "socialised_q99": Quantity("USD", "usd", "paths", _SOCIALISED),
    "socialised_chance": Quantity("1", "percent", "chance", _SOCIALISED),
    "need_q99": Quantity("USD", "usd", "paths", _NEED),
    "need_q999": Quantity("USD", "usd", "paths", _NEED),
    "need_adl_q999": Quantity("USD", "usd", "paths", f"{_NEED}, adl_haircut"),
    "need_fit_q999": Quantity("USD", "usd", "tail", _NEED),
    "size_over_need": Quantity("1", "times", "inverse", f"{_NEED}, config venues.*.pools.*.equity_usd"),
    "cover_1": Quantity("USD", "usd", "cover", "config, index_low, index_high"),
    "cover_2": Quantity("USD", "usd", "cover", "config, index_low, index_high"),
    "cover_ratio": Quantity("1", "times", "cover", "config, index_low, index_high"),
    "cover_move": Quantity("1", "signed", "extreme", "index_low, index_high"),
    "adl_mean": Quantity("USD", "usd", "mean", "adl_volume"),
    "adl_q99": Quantity("USD", "usd", "paths", "adl_volume"),
    "adl_chance": Quantity("1", "percent", "chance", "adl_volume"),
    "adl_haircut_mean": Quantity("USD", "usd", "mean", "adl_haircut"),
    "adl_top_share": Quantity("1", "percent", "paths", "adl_top_share"),
    "adl_open_interest": Quantity("1", "percent", "paths", "adl_open_interest"),
    "vault_mean": Quantity("USD", "usd", "mean", "vault_profit"),
    "vault_smallest": Quantity("USD", "usd", "extreme", "vault_profit"),
    "vault_exhausted": Quantity("1", "percent", "chance", "vault_equity"),
    "after_volatility_q50": Quantity("1", "percent", "paths", "recovery_volatility"),
    "after_interest_q50": Quantity("USD", "usd", "paths", "recovery_open_interest"),
    "after_leverage_q50": Quantity("1", "times", "paths", "recovery_open_interest, recovery_mean_leverage"),
    "after_volume_q50": Quantity("USD", "usd", "paths", "recovery_liquidation_volume"),
    "after_volume_q95": Quantity("USD", "usd", "paths", "recovery_liquidation_volume"),
    "after_funds_q50": Quantity("USD", "usd", "paths", "recovery_fund_equity"),
    "change_usd": Quantity("USD", "usd", "paired", "as the measure named"),
    "change_share": Quantity("1", "signed", "paired", "as the measure named"),
    "change_accounts": Quantity("accounts", "count", "paired", "as the measure named"),
    "frontier": Quantity("as the column says", "times", "file", "the file given"),
}
"""By name, as in the disclosure's column `quantity` and in the texts of every language."""


@dataclass(frozen=True)
class Fact:
    """One number of one scenario under one policy. Its interval is NaN where there is none, infinite at an open end."""

    quantity: str
    scenario: str
    policy: str
    estimate: Estimate
    venue: str = ""
    """All venues where empty."""
    pool: str = ""
    item: str = ""
    """What else it is of: an asset, a layer, an hour, a threshold [USD], a measure."""

    @property
    def value(self) -> float:
        """In the quantity's unit."""
        return self.estimate.value

    @property
    def has_interval(self) -> bool:
        """Whether it has a sampling error that is stated."""
        return not math.isnan(self.estimate.low)

    @property
    def key(self) -> str:
        """What names it, the same in report and disclosure."""
        parts = (self.scenario, self.policy, self.venue, self.pool, self.item, self.quantity)
        return "|".join(parts)


def exactly(value: float) -> Estimate:
    """A number without an interval."""
    return Estimate(float(value), math.nan, math.nan)


class Facts:
    """Numbers of one or more cells, looked up by what they are of."""

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self._by_key: dict[str, Fact] = {}
        for fact in facts:
            self.put(fact)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self._by_key.values())

    def put(self, fact: Fact) -> Fact:
        """Add a number; `ValueError` if it is not declared or there already."""
        if fact.quantity not in QUANTITIES or fact.key in self._by_key:
            raise ValueError(f"{fact.key!r} is not declared in QUANTITIES, or stands here twice.")
        self._by_key[fact.key] = fact
        return fact

    def of(
        self, quantity: str, scenario: str, policy: str, *, venue: str = "", pool: str = "", item: str = ""
    ) -> Fact | None:
        """The number, or nothing where there is none."""
        return self._by_key.get("|".join((scenario, policy, venue, pool, item, quantity)))

    def items(self, quantity: str, scenario: str, policy: str, venue: str = "") -> list[Fact]:
        """All of a quantity at a venue, by item, in the order in which they were added."""
        wanted = (quantity, scenario, policy, venue)
        return [fact for fact in self if (fact.quantity, fact.scenario, fact.policy, fact.venue) == wanted]
