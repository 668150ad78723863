"""What a run says of the behaviour of holders, and of support levels, as accounts of the slow twin."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from stress.config import Run
from stress.overlays import Support

from .twin_stops import stop_prices, triggers
from .twin_world import Accounts, World, isolated


def behaving(run: Run, world: World, accounts: Accounts) -> Accounts:
    """The accounts in as many parts as do something different, and the holders at support levels."""
    if run.behaviour is None and not any(isinstance(overlay, Support) for overlay in run.overlays):
        return accounts
    accounts = replace(accounts, stop=np.full(len(accounts.cash), np.nan), top_up=np.zeros(len(accounts.cash)))
    rules = run.behaviour
    if rules is not None and rules.top_ups is not None:
        profit = np.sum(accounts.quantity * (world.start_price - accounts.entry), axis=1)
        more = rules.top_ups.multiple * (accounts.cash + profit)
        share = rules.top_ups.share
        accounts = joined(part(accounts, 1 - share), replace(part(accounts, share), top_up=more))
    if rules is not None and rules.stop_losses is not None:
        stops, parts = rules.stop_losses, 1 if rules.stop_losses.nearest == rules.stop_losses.farthest else 4
        start, trigger = trigger_prices(world, accounts)
        liquid = trigger > 0
        held = [replace(accounts, count=accounts.count * np.where(liquid, 1 - stops.adoption, 1.0))]
        for k in range(parts):
            way = stops.nearest + (stops.farthest - stops.nearest) * (2 * k + 1) / (2 * parts)
            some = part(accounts, stops.adoption / parts)
            held.append(chosen(replace(some, stop=stop_prices(start, trigger, way)), liquid))
        accounts = joined(*held)
    for overlay in run.overlays:
        if isinstance(overlay, Support):
            accounts = joined(accounts, at_level(overlay, run, world))
    return chosen(accounts, accounts.count > 0)


def part(accounts: Accounts, share: float) -> Accounts:
    """A share of the copies of every account."""
    return replace(accounts, count=accounts.count * share)


def chosen(accounts: Accounts, which: np.ndarray) -> Accounts:
    """Some of the accounts."""
    return Accounts(**{field.name: getattr(accounts, field.name)[which] for field in fields(accounts)})


def joined(*several: Accounts) -> Accounts:
    """All of them."""
    names = [field.name for field in fields(Accounts)]
    return Accounts(**{name: np.concatenate([getattr(x, name) for x in several]) for name in names})


def trigger_prices(world: World, accounts: Accounts) -> tuple[np.ndarray, np.ndarray]:
    """Starting price of every account's market, and the mark at which it is liquidated once its cash is added [USD]."""
    rows, asset = np.arange(len(accounts.cash)), np.argmax(accounts.quantity != 0, axis=1)
    quantity, entry = accounts.quantity[rows, asset], accounts.entry[rows, asset]
    floor, rate = world.tier_floor[accounts.venue, asset], world.tier_rate[accounts.venue, asset]
    fee = np.where(world.fee_in_trigger, world.fee, 0.0)[accounts.venue]
    assert accounts.top_up is not None

    def kept(mark: np.ndarray) -> np.ndarray:
        notional = np.abs(quantity) * mark
        above = np.clip(notional[:, None] - floor, 0.0, np.diff(floor, append=np.inf, axis=1))
        return np.sum(np.where(np.isfinite(floor), rate * above, 0.0), axis=1) + fee * notional

    cash = accounts.cash + accounts.top_up - quantity * entry
    with np.errstate(invalid="ignore"):
        return world.start_price[asset], triggers(cash, quantity, world.start_price[asset], kept)


def at_level(level: Support, run: Run, world: World) -> Accounts:
    """Holders who have paid in full, in 16 equal parts over the width, by the venues' average daily volumes."""
    parts, asset, sign = 1 if level.width == 0 else 16, list(run.assets).index(level.asset), -np.sign(level.move)
    there = [v for v in range(len(run.venues)) if world.listed[v, asset] and not world.inverse[v, asset]]
    venues = [list(run.venues).index(name) for name in level.venues] or there
    share = world.adv[venues, asset] / world.adv[venues, asset].sum()
    start, low = world.start_price[asset], level.move - level.width / 2
    venue, usd = np.repeat(venues, parts), np.repeat(share * level.usd / parts, parts)
    held = isolated(
        venue=venue,
        asset=np.full(len(venue), asset),
        quantity=sign * usd / start,
        entry=np.full(len(venue), start),
        margin=usd,
        count=np.ones(len(venue)),
        assets=len(run.assets),
    )
    moves = np.tile(low + level.width * (np.arange(parts) + 0.5) / parts, len(venues))
    return replace(held, stop=start * (1 + moves), top_up=np.zeros(len(venue)))
