"""The rules of venues side by side, as a table in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stress.backstops import Adl, Pool
from stress.venues import CASH, FractionStaging, RestoreStaging, Staging, TierStaging, Venue

_PLACES = {0: "", 3: " k", 6: " M", 9: " bn"}
"""Powers of ten, and their words."""
_RANKING = {
    "queue": "profit rate x leverage",
    "pro_rata": "by profit, pro rata",
    "water_filling": "highest leverage down",
}
_MARK = {
    "median": "median of index, index + average basis, last",
    "index_average": "index + average basis",
    "last": "last",
    "index": "index",
}


def _mark(venue: Venue) -> str:
    averaged = venue.mark in ("median", "index_average")
    return _MARK[venue.mark] + (f" ({venue.mark_window_minutes:g} min)" if averaged else "")


def venue_table(venues: Iterable[Venue]) -> str:
    """A line for each venue, with a head."""
    lines = [rules(venue) for venue in venues]
    head = list(lines[0]) if lines else []
    rows = [head, ["---"] * len(head), *(list(line.values()) for line in lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def rules(venue: Venue) -> dict[str, str]:
    """The rules of a venue in words, by what they are about."""
    inverse = [asset for asset in venue.markets if venue.inverse(asset)]
    linear = [asset for asset in venue.markets if not venue.inverse(asset)]
    pause = getattr(venue.staging, "pause_seconds", 0.0)
    return {
        "venue": venue.name,
        "liquidated when equity <=": "maintenance + fee" if venue.fee_in_trigger else "maintenance",
        "closes": _staging(venue.staging),
        "pause": f"{pause:g} s" if pause else "none",
        "fee; rest to": f"{venue.liquidation_fee_bps / 100:g} %; {venue.surplus_to}",
        "layers": _layers(venue),
        "vault": _vault(venue),
        "fund, USD": _join(_fund(pool) for pool in venue.pools),
        "ADL starts": _adl_start(venue.adl, venue.pools),
        "ADL rank; price": f"{_RANKING[venue.adl.ranking]}; {venue.adl.close_at}",
        "mark (average over)": _mark(venue),
        "collateral (haircut)": _collateral(venue, inverse),
        "long and short": venue.hedged_legs,
        "contracts": _join(
            f"{kind} {', '.join(of)}" for kind, of in (("linear", linear), ("inverse", inverse)) if of
        ),
    }  # fmt: skip


def _join(parts: Iterable[str]) -> str:
    return "; ".join(parts)


def _usd(amount: float) -> str:
    """An amount in thousands, millions or billions [USD]."""
    power = max(power for power in _PLACES if power == 0 or abs(amount) >= 10**power)
    return f"{amount / 10**power:g}{_PLACES[power]}"


def _staging(staging: Staging) -> str:
    if isinstance(staging, TierStaging):
        down = "two tiers" if staging.down == 2 else "one tier"
        return f"down {down}; whole in the lowest {'two' if staging.whole_below == 2 else 'one'}"
    if isinstance(staging, FractionStaging):
        return f"{staging.share * 100:g} % first above {_usd(staging.above_usd)} USD, then the rest"
    if isinstance(staging, RestoreStaging):
        return f"what restores {staging.target:g} x maintenance"
    return "whole"


def _layers(venue: Venue) -> str:
    given = {
        "auction": any(market.auction_usd_per_hour > 0 for market in venue.markets.values()),
        "takeover": any(pool.takeover_multiple > 0 and pool.equity_usd > 0 for pool in venue.pools),
        "vault": venue.vault is not None,
    }
    return ", ".join(["book", *(layer for layer, there in given.items() if there), "adl"])


def _vault(venue: Venue) -> str:
    if venue.vault is None:
        return "none"
    low_high = venue.vault.profit_bps
    price = "at bankruptcy" if low_high is None else f"for {low_high[0]:g} to {low_high[1]:g} bp"
    return f"{_usd(venue.vault.equity_usd)}, below {venue.vault.entry_ratio:.2g} x maintenance, {price}"


def _fund(pool: Pool) -> str:
    if not pool.equity_usd:
        return "none"
    takes = f", holds up to {pool.takeover_multiple:g} x" if pool.takeover_multiple else ", takes nothing over"
    of = "" if pool.markets == "all" else f" for {', '.join(pool.markets)}"
    return f"{_usd(pool.equity_usd)}{of}{takes}" + (f", topped up by {pool.topped_up_by}" if pool.topped_up_by else "")


def _adl_start(adl: Adl, pools: Sequence[Pool]) -> str:
    funded = any(pool.equity_usd > 0 for pool in pools)
    starts = ["fund empty" if funded else "account bankrupt, as there is no fund"]
    if adl.drawdown_share is not None:
        only = ", no order to the book then" if adl.straight_to_adl else ""
        starts.append(f"fund {adl.drawdown_share * 100:g} % down in {adl.drawdown_window_hours:g} h{only}")
    return _join([*starts, *(["order left over"] if adl.leftover else [])])


def _collateral(venue: Venue, inverse: Sequence[str]) -> str:
    coins = dict.fromkeys(inverse, 0.0) | venue.haircuts
    return ", ".join([CASH, *(f"{token} ({haircut * 100:g} %)" for token, haircut in coins.items())])
