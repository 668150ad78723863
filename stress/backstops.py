"""What stands behind a venue's book: insurance funds, a backstop vault, auto-deleveraging, a circuit breaker."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stress.spec import Fraction, Many, NonNegative, Number, Positive, Spec


class Pool(Spec):
    """An insurance fund."""

    name: str
    """After the venue's in results: VENUE/NAME."""
    equity_usd: NonNegative
    """Cash at the start [USD]."""
    takeover_multiple: NonNegative
    """The pool holds at most this multiple of its equity [1]."""
    markets: Many[str] | Literal["all"] = "all"
    """Assets whose perpetuals this pool stands behind."""
    topped_up_by: str | None = None
    """Name of the venue's pool that tops this one up at the end of a step; nobody where absent."""
    floor_usd: NonNegative = 0.0
    """Equity to which the pool is topped up, and below which it gives nothing to another [USD]."""
    source: str


class Vault(Spec):
    """A backstop that takes positions over with their margin, after the pool's takeover and before deleveraging."""

    equity_usd: Positive
    """Cash at the start [USD]."""
    capacity_usd: Positive
    """Notional that it holds at most, over all markets [USD]."""
    entry_ratio: Positive = 2 / 3
    """It takes from accounts whose equity is below this multiple of what is required [1]."""
    profit_bps: Annotated[Many[Number], Field(min_length=2, max_length=2)] | None = None
    """Lower and upper bound of its profit on what it takes against the mark, a loss negative [bp of the mark]; without
    them it pays the bankruptcy price, whatever that is."""
    unwind_usd_per_minute: NonNegative
    """Rate at which it unwinds into the book of each market [USD/min]."""
    source: str

    @model_validator(mode="after")
    def _bounds_ascend(self) -> Self:
        if self.profit_bps is not None and self.profit_bps[0] > self.profit_bps[1]:
            low, high = self.profit_bps
            raise ValueError(f"profit_bps is [{low:g}, {high:g}] bp, expected the lower bound first. Exchange the two.")
        return self


class Adl(Spec):
    """Auto-deleveraging."""

    ranking: Literal["queue", "pro_rata", "water_filling"]
    """`queue`: highest profit rate times leverage first; `pro_rata`: by unrealised profit; `water_filling`: accounts of
    the highest leverage come down to one level."""
    close_at: Literal["bankruptcy", "mark", "index"]
    """Price at which winners are closed."""
    leftover: bool = True
    """What the layers leave goes to adl though the fund is neither empty nor drawn down; otherwise it is closed at the
    mark against the rest of the market."""
    drawdown_share: Fraction | None = None
    """ADL starts when the fund is this share below its rolling peak; absent: on exhaustion and for left-over
    slices [1]."""
    drawdown_window_hours: Positive = 8.0
    """Length of the rolling window [h]."""
    straight_to_adl: bool = False
    """While drawdown ADL is on, no forced order goes to the book at all."""


class Breaker(Spec):
    """A circuit breaker: the venue stops liquidating for a while, in all its markets, or asks for wider margins.

    In the pause nobody is tested, and nothing is taken in of what waits for the engine. Prices go on, so does the
    unwinding of pools and vaults, so do stop orders; who is above maintenance again when it ends is not liquidated.
    Wider margins hold for accounts on ladders: all triggers of a market side move by the same share of the price, the
    mean of what the multiple does to each.
    """

    move: Annotated[Number, Field(gt=0, lt=1)]
    """Move of the index of any market of the venue, either way, that trips it [1]; not judged while it is tripped."""
    minutes: Positive
    """Within which, to the step [min]."""
    pause_minutes: Positive
    """Length of the pause, or for how long margins are wider, up to the next step [min]."""
    margin_times: Annotated[Number | None, Field(gt=1, le=10, exclude_if=lambda times: times is None)] = None
    """Instead of a pause, the multiple of maintenance that the venue asks for meanwhile [1]."""
    source: str = ""


def check_pools(pools: tuple[Pool, ...], markets: tuple[str, ...]) -> None:
    """`ValueError` unless names differ, each market has one pool, and pools are topped up by others that exist."""
    names = [pool.name for pool in pools]
    if len(set(names)) < len(names):
        raise ValueError(f"pools are named {names}, expected different names. Rename one.")
    for pool in pools:
        unknown = [] if pool.markets == "all" else [asset for asset in pool.markets if asset not in markets]
        if unknown:
            raise ValueError(
                f"pool '{pool.name}' stands behind {unknown[0]!r}, expected one of the venue's markets "
                f"({', '.join(markets)}). Correct pools.markets."
            )
        others = [name for name in names if name != pool.name]
        if pool.topped_up_by is not None and pool.topped_up_by not in others:
            raise ValueError(
                f"pool '{pool.name}' is topped up by {pool.topped_up_by!r}, expected another pool of the venue "
                f"({', '.join(others) or 'there is none'}). Correct pools.topped_up_by, or leave it out."
            )
    for asset in markets:
        behind = [pool.name for pool in pools if pool.markets == "all" or asset in pool.markets]
        if len(behind) != 1:
            raise ValueError(
                f"market {asset} has {len(behind)} pools, expected exactly one. Name each market in one pool."
            )
