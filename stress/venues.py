"""A venue: its markets, maintenance tiers, insurance funds and the rules by which it closes accounts."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stress.spec import Fraction, Many, NonNegative, Number, Positive, Spec


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


class Adl(Spec):
    """Auto-deleveraging."""

    ranking: Literal["queue", "pro_rata", "water_filling"]
    """`queue`: highest profit rate times leverage first; `pro_rata`: by unrealised profit; `water_filling`: the highest
    leverage comes down to one level."""
    close_at: Literal["bankruptcy", "mark", "index"]
    """Price at which winners are closed."""
    leftover: bool = True
    """What the layers leave goes to ADL; if not, it closes at the mark unless the fund is exhausted or drawn down."""
    drawdown_share: Fraction | None = None
    """ADL starts also when the fund is this share below its rolling peak; absent: on exhaustion and for left-over
    slices."""
    drawdown_window_hours: Positive = 8.0
    """Length of the rolling window [h]."""
    straight_to_adl: bool = False
    """While drawdown ADL is on, no forced order goes to the book at all."""


class Funding(Spec):
    """Payments between longs and shorts."""

    interval_hours: Positive
    interest: Number
    """I of the funding formula, per interval [1]."""
    clamp: NonNegative
    """Bound on I - P [1]."""
    cap: NonNegative
    """Bound on the rate [1]."""
    source: str


class Pool(Spec):
    """An insurance fund."""

    name: str
    equity_usd: NonNegative
    """Cash at the start [USD]."""
    takeover_multiple: NonNegative
    """The pool holds at most this multiple of its equity [1]."""
    markets: Many[str] | Literal["all"] = "all"
    """Assets whose perpetuals this pool stands behind."""
    source: str


class Venue(Spec):
    """An exchange."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
    source: str
    """Where the rules come from, and when."""
    liquidation_fee_bps: NonNegative
    """Fee on what is closed in book or auction [bp of notional]."""
    fee_in_trigger: bool
    """Liquidated when equity <= maintenance + fee, instead of <= maintenance."""
    surplus_to: Literal["trader", "pool"]
    """Who keeps what an account has left after its last position is closed."""
    mark: Literal["median", "index_average", "last"]
    """`median` of index, index + average basis and last; index + average basis; last."""
    mark_window_minutes: Positive
    """Window of the average basis [min]."""
    staging: Staging
    closing_order: Literal["proportional", "riskiest_first"] = "proportional"
    """What staging closes of an account of several positions: of each, or only the one that requires most."""
    adl: Adl
    funding: Funding
    pools: Annotated[Many[Pool], Field(min_length=1)]
    markets: Annotated[dict[str, Market], Field(min_length=1)]
    """Perpetuals by asset."""

    @model_validator(mode="after")
    def _each_market_has_one_pool(self) -> Self:
        names = [pool.name for pool in self.pools]
        if len(set(names)) < len(names):
            raise ValueError(f"pools are named {names}, expected different names. Rename one.")
        for pool in self.pools:
            unknown = [] if pool.markets == "all" else [asset for asset in pool.markets if asset not in self.markets]
            if unknown:
                raise ValueError(
                    f"pool '{pool.name}' stands behind {unknown[0]!r}, expected one of the venue's markets "
                    f"({', '.join(self.markets)}). Correct pools.markets."
                )
        for asset in self.markets:
            behind = [pool.name for pool in self.pools if pool.markets == "all" or asset in pool.markets]
            if len(behind) != 1:
                raise ValueError(
                    f"market {asset} has {len(behind)} pools, expected exactly one. Name each market in one pool."
                )
        return self

    def pool_of(self, asset: str) -> int:
        """Position in `pools` of the fund behind the perpetual on `asset`."""
        return next(i for i, pool in enumerate(self.pools) if pool.markets == "all" or asset in pool.markets)
