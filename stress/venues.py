"""A venue: its markets, maintenance tiers, insurance funds and the rules by which it closes accounts."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from stress.backstops import Adl, Breaker, Pool, Vault, check_pools
from stress.maintenance import Array, Listed, Maintenance
from stress.spec import Fraction, Many, NonNegative, Number, Positive, Spec

CASH = "USD"
"""Token that is cash."""


class Tier(Spec):
    """One maintenance bracket."""

    floor_usd: NonNegative
    """Notional above which the bracket applies [USD]."""
    rate: Annotated[Number, Field(gt=0, lt=1)]
    """Marginal maintenance rate [1]."""
    max_leverage: Annotated[Number, Field(ge=1)] | None = None
    """Largest opening leverage [1]; not used by the simulation."""


class Market(Spec):
    """A perpetual on one asset at this venue."""

    contract: Literal["linear", "inverse"] = "linear"
    """`linear`: quantity in coins, profit in USD; `inverse`: quantity N in USD, profit N (1 / entry - 1 / mark) in the
    asset's coin, which backs it."""
    tiers: Many[Tier]
    """Maintenance brackets by ascending floor; the first floor is 0."""
    tiers_source: str
    """Where the brackets come from, and when."""
    adv_usd: Positive
    """Average daily volume [USD]; scales price impact."""
    take_bound_bps: Positive
    """A forced order stops where the marginal price is this far from the mark [bp]."""
    throughput_usd_per_minute: Positive
    """What the liquidation engine takes in at most [USD/min]."""
    auction_usd_per_hour: NonNegative
    """Market makers' capacity in one clock hour [USD]."""
    auction_discount_bps: NonNegative
    """Makers buy at the mark less this, and sell at the mark plus it [bp]."""
    unwind_usd_per_minute: NonNegative
    """Rate at which the pool unwinds what it took over [USD/min]."""
    source: str
    """Where the market's other numbers come from, and when."""

    @model_validator(mode="after")
    def _tiers_ascend(self) -> Self:
        if not self.tiers:
            raise ValueError("tiers is empty, expected at least one. Add a tier with floor_usd = 0.")
        if self.tiers[0].floor_usd != 0:
            raise ValueError(
                f"tiers[0].floor_usd is {self.tiers[0].floor_usd:g} USD, expected 0. Start with the lowest tier."
            )
        for i, (low, high) in enumerate(zip(self.tiers, self.tiers[1:], strict=False), start=1):
            if high.floor_usd <= low.floor_usd:
                raise ValueError(
                    f"tiers[{i}].floor_usd is {high.floor_usd:g} USD, expected more than tiers[{i - 1}].floor_usd = "
                    f"{low.floor_usd:g} USD. List tiers by ascending floor."
                )
            if high.rate <= low.rate:
                raise ValueError(
                    f"tiers[{i}].rate is {high.rate:g}, expected more than tiers[{i - 1}].rate = {low.rate:g}. "
                    "Maintenance rates rise with the notional."
                )
        return self


class WholeStaging(Spec):
    """The whole account at once."""

    kind: Literal["full"]


class _Staged(Spec):
    """Closes in parts. An account without equity is closed whole under any rule."""

    pause_seconds: NonNegative = 0.0
    """After a partial close the account is not tested for this long, and then up to the next step [s].

    Isolated positions on ladders do not pause: they are tested again at once.
    """


class TierStaging(_Staged):
    """Every position down to a lower bracket, then tested again."""

    kind: Literal["tiers"]
    down: Literal[1, 2] = 1
    """How many brackets a partial close goes down."""
    whole_below: Literal[1, 2] = 1
    """Accounts in this many lowest brackets close whole."""


class FractionStaging(_Staged):
    """A share first; the rest, unless the account passes a test before."""

    kind: Literal["fraction"]
    share: Annotated[Number, Field(gt=0, lt=1)]
    """Share of every position that goes first [1]."""
    above_usd: NonNegative = 0.0
    """Accounts of at most this notional close whole [USD]."""


class RestoreStaging(_Staged):
    """The smallest share of every position after which equity is a multiple of what is required."""

    kind: Literal["restore"]
    target: Annotated[Number, Field(gt=1)]
    """That multiple, of maintenance and a counted fee [1]."""


Staging = Annotated[WholeStaging | TierStaging | FractionStaging | RestoreStaging, Field(discriminator="kind")]
"""How a triggered account is closed."""


class Funding(Spec):
    """Payments between longs and shorts."""

    interval_hours: Positive
    """Time between two payments [h]."""
    interest: Number
    """I of the funding formula [1]."""
    clamp: NonNegative
    """Bound on I - P [1]."""
    cap: NonNegative
    """Bound on the rate [1]."""
    divisor: Positive = 1.0
    """By which the rate is divided before the cap: 8 where it is one for 8 h and an hour is paid at a time [1]."""
    source: str


class Venue(Spec):
    """An exchange."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    """As in `venues` of the run."""
    source: str
    """Where the rules come from, and when."""
    liquidation_fee_bps: NonNegative
    """Fee on what is closed in book or auction [bp of notional]."""
    fee_in_trigger: bool
    """Liquidated when equity <= maintenance + fee, instead of <= maintenance."""
    surplus_to: Literal["trader", "pool"]
    """Who keeps what an account has left after its last position is closed."""
    mark: Literal["median", "index_average", "last", "index"]
    """`median` of index, index + average basis and last; index + average basis; last; the index alone."""
    mark_window_minutes: Positive = 30.0
    """Window of the average basis, where the mark needs one [min]."""
    maintenance: Maintenance = Listed(kind="listed")
    """Maintenance margin; the brackets of each market where absent."""
    staging: Staging
    """How much of a triggered account is closed at a time."""
    closing_order: Literal["proportional", "riskiest_first"] = "proportional"
    """What staging closes of an account of several positions: of each, or only the one that requires most."""
    haircuts: dict[str, Fraction] = {}
    """Tokens taken as collateral on cross margin, and what is taken off the value of each where equity is compared with
    maintenance [1]. The coin of an inverse contract is always taken, at a haircut of 0 unless named here."""
    hedged_legs: Literal["netted", "refused"] = "netted"
    """A long and a short of one account in one market: `netted`: the hedged part needs no maintenance; `refused`: the
    file is refused, as at a venue that wants maintenance on both legs, which is not modelled."""
    adl: Adl
    """Auto-deleveraging: who is closed against what the other layers leave, when, and at what price."""
    vault: Vault | None = None
    """A backstop vault between takeover and adl; none where absent."""
    breaker: Breaker | None = None
    """A circuit breaker; none where absent."""
    funding: Funding
    """What longs pay to shorts."""
    pools: Annotated[Many[Pool], Field(min_length=1)]
    """Insurance funds; every market has exactly one behind it."""
    markets: Annotated[dict[str, Market], Field(min_length=1)]
    """Perpetuals by asset."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if CASH in self.haircuts:
            raise ValueError(
                f"haircuts.{CASH} is {self.haircuts[CASH]:g}, expected tokens other than {CASH}: cash counts in full. "
                "Leave it out."
            )
        check_pools(self.pools, tuple(self.markets))
        return self

    def brackets(self, asset: str, daily_volatility: float) -> tuple[Array, Array]:
        """Floors [USD] and marginal rates [1] of maintenance in a market whose asset has this volatility [1]."""
        market = self.markets[asset]
        floor, rate = np.array([(tier.floor_usd, tier.rate) for tier in market.tiers]).T
        return self.maintenance.schedule(floor, rate, market.adv_usd, daily_volatility)

    def inverse(self, asset: str) -> bool:
        """Whether it lists an inverse contract on `asset`."""
        return asset in self.markets and self.markets[asset].contract == "inverse"

    def takes(self, token: str) -> bool:
        """Whether `token`, other than cash, is collateral on cross margin."""
        return token in self.haircuts or self.inverse(token)

    def pool_of(self, asset: str) -> int:
        """Position in `pools` of the fund behind the perpetual on `asset`."""
        return next(i for i, pool in enumerate(self.pools) if pool.markets == "all" or asset in pool.markets)
