"""One table that declares every variable of a run, and what its dimensions are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator

from stress.spec import Many, nearest

SIDES = ("long", "short")
"""Whose position was closed."""
LAYERS = ("book", "auction", "takeover", "adl", "remainder")
"""What absorbed it, in the order of the waterfall."""
WITH_VAULT = ("book", "auction", "takeover", "vault", "adl", "remainder")
"""The same where a venue of the run has a backstop vault."""
CELL = ("scenario", "policy", "seed")
"""Dims of a suite's cells, before those of a run."""


@dataclass(frozen=True)
class Variable:
    """One output of a run.

    `dtype` is float64 for stocks of money that differences are taken of, and for likelihood ratios; float32, good
    to 1e-7, for flows of one hour and for shares. Take sums of flows over hours or paths in float64.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str

    @property
    def fill(self) -> float | int:
        """What a place reads as that was never written: NaN, or -1 among integers."""
        return np.nan if self.dtype.startswith("float") else -1

    @property
    def attrs(self) -> dict[str, Any]:
        """Units and meaning, as attributes of an array."""
        return {"units": self.units, "long_name": self.long_name}


def _variable(name: str, dims: str, dtype: str, units: str, long_name: str) -> Variable:
    return Variable(name, tuple(dims.split()), dtype, units, long_name)


_POOL, _VENUE, _MARKET = "path hour pool", "path hour venue", "path hour venue asset"
_TOP = (
    "of each market side's winners by profit (on ladders: of all its accounts by position at the start; on ladders and "
    "cross margin each), against the mark; NaN without a loss"
)
_KEEPS = "what the winner with the largest profit keeps of it in the hour's largest ADL of a market side, over"
_UNKNOWN = "NaN without a loss, and where it closed accounts on ladders"
_TABLE = (
    _variable("liquidation_volume", f"{_MARKET} side", "float32", "USD", "forced closings when executed"),
    _variable("stop_volume", f"{_MARKET} side", "float32", "USD", "closed by stop orders when executed"),
    _variable(
        "voluntary_volume",
        f"{_MARKET} side",
        "float32",
        "USD",
        "positions closed by their holders: after a spike, or fresh ones when their time is over",
    ),
    _variable("opened_volume", f"{_MARKET} side", "float32", "USD", "fresh positions opened"),
    _variable("absorbed_volume", f"{_MARKET} layer", "float32", "USD", "forced closings by what absorbed them"),
    _variable("deficit", _POOL, "float32", "USD", "what the insurance fund was asked to pay"),
    _variable("surplus", _POOL, "float32", "USD", "what the insurance fund received, fees included"),
    _variable("fund_equity", _POOL, "float64", "USD", "insurance fund's equity at the end of the hour"),
    _variable("fund_low", _POOL, "float64", "USD", "insurance fund's lowest equity within the hour"),
    _variable("fund_drawdown", "path pool", "float64", "USD", "largest peak-to-trough fall of the fund's equity"),
    _variable(
        "fund_exhausted_hour",
        "path pool",
        "float32",
        "h",
        "first hour with fund equity <= 0, in a fund that never has money the first of all; NaN if never",
    ),
    _variable("adl_volume", _MARKET, "float32", "USD", "winners' positions closed by auto-deleveraging"),
    _variable("adl_haircut", _MARKET, "float32", "USD", "what deleveraged winners lost against the mark"),
    _variable(
        "adl_accounts",
        _VENUE,
        "float32",
        "accounts",
        "accounts deleveraged, each once an hour; on ladders by rank parts of accounts, in every round",
    ),
    _variable("adl_top_share", _VENUE, "float32", "1", f"share of winners' losses borne by the top 1 %; {_TOP}"),
    _variable("adl_top_10_share", _VENUE, "float32", "1", f"share of winners' losses borne by the top 10 %; {_TOP}"),
    _variable("adl_top_keeps_of_total", _VENUE, "float32", "1", f"{_KEEPS} all losses in it; {_UNKNOWN}"),
    _variable(
        "adl_top_keeps_of_largest", _VENUE, "float32", "1", f"{_KEEPS} the largest loss of one account; {_UNKNOWN}"
    ),
    _variable("adl_overshoot", _MARKET, "float32", "USD", "haircut less what the losers lacked at the mark"),
    _variable(
        "adl_open_interest", _MARKET, "float32", "1", "share of the open interest before the hour that ADL closed"
    ),
    _variable("socialised_loss", _POOL, "float32", "USD", "losses taken from winners' unrealised profit"),
    _variable("collateral_sold", _MARKET, "float32", "USD", "coins of collateral sold in the spot market for debts"),
    _variable("vault_equity", _VENUE, "float64", "USD", "backstop vault's equity at the end of the hour; NaN if none"),
    _variable("vault_profit", _VENUE, "float32", "USD", "backstop vault's profit in the hour, a loss negative"),
    _variable("index_close", "path hour asset", "float32", "1", "index at the end of the hour over the start's"),
    _variable("index_low", "path hour asset", "float32", "1", "lowest index within the hour over the start's"),
    _variable("index_high", "path hour asset", "float32", "1", "highest index within the hour over the start's"),
    _variable("basis_low", _MARKET, "float32", "1", "perpetual's lowest premium over the index within the hour"),
    _variable("basis_high", _MARKET, "float32", "1", "perpetual's highest premium over the index within the hour"),
    _variable("open_interest", _MARKET, "float32", "USD", "one-sided, at the end of the hour, at the mark"),
    _variable("accounts_liquidated", _VENUE, "float32", "accounts", "accounts liquidated"),
    _variable("paused", _VENUE, "float32", "1", "share of the hour in which a circuit breaker stopped liquidations"),
    _variable("first_round_volume", _MARKET, "float32", "USD", "triggered in the first round of each step"),
    _variable("log_weight", "path", "float64", "1", "log likelihood ratio; 0 without importance sampling"),
    _variable("ledger_residual", "path", "float32", "1", "largest relative residual of the ledger at hourly ends"),
    _variable("status", "path", "int32", "1", "0: sound; other codes: the path failed"),
)

VARIABLES: Mapping[str, Variable] = {variable.name: variable for variable in _TABLE}
"""Every variable of a run's hours, by name. In a market that a venue does not list, volumes and premiums are 0."""

_DAYS = (
    _variable(
        "recovery_open_interest",
        "path day venue asset",
        "float32",
        "USD",
        "one-sided, at the end of the day, at the mark",
    ),
    _variable(
        "recovery_mean_leverage",
        "path day venue asset",
        "float32",
        "1",
        "notional over equity of all accounts together, at the end of the day, at the mark; NaN without any",
    ),
    _variable(
        "recovery_volatility",
        "path day asset",
        "float32",
        "1",
        "root of the sum of the index's squared log-returns of the day's steps; at day 0 what the days begin with",
    ),
    _variable(
        "recovery_liquidation_volume",
        "path day venue asset side",
        "float32",
        "USD",
        "forced closings of the day when executed; at day 0 of the run's last 24 hours",
    ),
    _variable(
        "recovery_fund_equity", "path day pool", "float64", "USD", "insurance fund's equity at the end of the day"
    ),
)
OF_RECOVERY: Mapping[str, Variable] = {variable.name: variable for variable in _DAYS}
"""What the days after the last hour put out besides, where a config has any."""
DECLARED: Mapping[str, Variable] = {**VARIABLES, **OF_RECOVERY}
"""All of them."""


def _known(names: Many[str]) -> Many[str]:
    for name in names:
        if name not in DECLARED:
            raise ValueError(
                f"{name!r} is not a variable of a run, one was expected.{nearest(name, DECLARED)} Mend it."
            )
    return names


Names = Annotated[Many[str], AfterValidator(_known)]
"""Some of the variables."""


def check_kept(names: Many[str], days: int) -> None:
    """`ValueError` where variables of days after the last hour are to be kept, and there are none."""
    for name in names:
        if name in OF_RECOVERY and not days:
            raise ValueError(
                f"keep: {name!r} is of days after the last hour, expected behaviour.recovery, which says how many. "
                "Add that, or leave out the variable."
            )


ALWAYS = ("log_weight", "status")
"""Kept whatever a config says: what a path counts, and whether it does."""

COORDINATES: Mapping[str, Variable] = {
    "path": Variable("path", ("path",), "int64", "1", "number of the path; with the seed it fixes the random draws"),
    "hour": Variable("hour", ("hour",), "int64", "h", "hours since the start, at the beginning of the hour"),
    "day": Variable(
        "day", ("day",), "int64", "day", "days since the last hour, at the end of the day; 0: as it leaves things"
    ),
    "venue": Variable("venue", ("venue",), "str", "", "exchange"),
    "asset": Variable("asset", ("asset",), "str", "", "underlying"),
    "side": Variable("side", ("side",), "str", "", "side of the position that was closed"),
    "layer": Variable("layer", ("layer",), "str", "", "what absorbed the forced order"),
    "pool": Variable("pool", ("pool",), "str", "", "insurance fund, as VENUE/NAME"),
}
"""Every dimension of a run, with what its labels are."""

OF_SUITES: Mapping[str, Variable] = {
    "scenario": Variable("scenario", ("scenario",), "str", "", "what happens"),
    "policy": Variable("policy", ("policy",), "str", "", "the rules under which it does"),
    "seed": Variable("seed", ("seed",), "int64", "1", "seed of the random draws"),
    "config": Variable("config", CELL, "str", "", "config of each cell, as JSON"),
}
"""The further dimensions of a suite, and what differs along them."""
