"""In a single round the layers act in order, in any small world; in 32 bits, one round a step, one compiled program."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.drawn import Seen, World, crowd, examples, log_indices, rules, total, walked

LAYERS = ("book", "auction", "takeover", "vault", "adl", "remainder")
IN_32_BITS = {"dtype": "float32", "rounds": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("worlds")


@given(rules())
@examples(6)
def test_nothing_is_created_in_32_bits(folder, drawn):
    """Money by currency and contracts by market add up over all parties, to rounding."""
    _, seen = walked(drawn, folder, **IN_32_BITS)
    assert seen.residual.dtype == np.float32
    assert seen.residual.max() < 1e-6


EVENT = 4
"""Step of the one jump."""
TINY = 1e-4
"""More than rounding in 32 bits, less than anything that a layer does."""


@dataclass(frozen=True)
class Event:
    """A single round, from a book without imbalances in which every entry is at the starting price: after a jump one
    side of a market wins, and the other one loses."""

    world: World
    drawn: dict[str, Any]
    seen: Seen
    """After it, as the only step."""
    mark: np.ndarray
    """At its opening, over the start's, (1 v a p)."""

    @classmethod
    def of(cls, drawn: dict[str, Any], folder: Path) -> Event:
        people = crowd(drawn["seed"], drawn["coins"], spread=0.0)
        world, seen = walked(drawn, folder, people, **IN_32_BITS)
        mark = np.exp(log_indices(drawn["way"], drawn["seed"])[EVENT])
        step = jax.tree.map(lambda x: x[EVENT : EVENT + 1], tuple(seen))
        return cls(world, drawn, Seen(*step), np.broadcast_to(mark, (1, 2, *mark.shape)))

    @functools.cached_property
    def took(self) -> dict[str, np.ndarray]:
        """What each layer took [USD], (v a s p)."""
        layers = np.asarray(self.seen.record.hour.layers[0], float)
        return dict(zip(LAYERS, layers, strict=True))

    def beyond(self, layer: str) -> np.ndarray:
        """What the layers behind one took [USD], (v a s p)."""
        return np.sum([self.took[name] for name in LAYERS[LAYERS.index(layer) + 1 :]], axis=0)

    @property
    def pool_usd(self) -> np.ndarray:
        """Equity of the pools when the round opened, (f 1)."""
        return np.asarray(self.world.rules.pool_cash, float)[:, None]

    @property
    def sound(self) -> np.ndarray:
        """Markets whose pool is not exhausted, so that all slices try book and auction first, (v a 1)."""
        return np.einsum("fva,fp->vap", self.world.rules.behind, self.pool_usd) > 1

    def of_pools(self, usd: np.ndarray) -> np.ndarray:
        """Sums over the markets and sides of every pool, (f p)."""
        return np.einsum("fva,vasp->fp", self.world.rules.behind, usd)

    def open_winners(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions in profit of accounts with equity that are not closing, and their side, (k p a b)."""
        held, quantity = self.seen.holdings, self.seen.holdings.quantity[0]
        left = self.world.equity(held, self.mark, self.mark)[0] > TINY * self.world.notional
        idle = (left & ~held.closing[0] & self.world.there)[:, :, None]
        profit = np.sign(quantity) * (self.world.of_accounts(self.mark)[0] - 1)
        return idle & (profit > 0) & (np.abs(quantity) > TINY * self.world.notional[:, :, None]), quantity < 0


def some(usd: np.ndarray) -> np.ndarray:
    """More than rounding [USD]."""
    return usd > 1000.0


def book_is_full(event: Event) -> bool:
    """Its marginal price is at the take bound, never beyond."""
    world, bound, flow = event.world.rules, event.drawn["take_bound_bps"] / 1e4, event.took["book"]
    rho, delta, coefficient = world.impact.rho, world.impact.delta, world.impact.coefficient[:, None, None]
    of_market, of_all = world.adv[..., None, None], world.adv_global[:, None, None]
    push = coefficient * (rho * (flow / of_all) ** delta + (1 - rho) * (flow / of_market) ** delta)
    part = push / np.array([-np.log1p(-bound), np.log1p(bound)])[:, None]
    assert np.all(part <= 1 + TINY)
    went_on = some(event.beyond("book")) & event.sound[:, :, None]
    assert np.all(part[went_on] >= 1 - TINY)
    return bool(went_on.any())


def auction_is_spent(event: Event) -> bool:
    """Makers have taken all that they can take in an hour, never more."""
    capacity = event.drawn["auction_usd_per_hour"]
    taken, went_on = event.took["auction"].sum(axis=2), some(event.beyond("auction").sum(axis=2)) & event.sound
    assert np.all(taken <= capacity * (1 + TINY))
    assert np.all(taken[went_on] >= capacity * (1 - TINY))
    return capacity > 0 and bool(went_on.any())


def takeover_has_no_room(event: Event) -> bool:
    """Pools have taken over their multiple of equity, never more."""
    room = np.where(event.pool_usd > 1, event.drawn["takeover_multiple"] * event.pool_usd, 0.0)
    taken, went_on = event.of_pools(event.took["takeover"]), some(event.of_pools(event.beyond("takeover")))
    assert np.all(taken <= room * (1 + TINY))
    assert np.all(taken >= np.where(went_on, room * (1 - TINY), 0.0))
    return bool(np.any(went_on & (room > 0)))


def vault_is_full(event: Event) -> bool:
    """The vault, which takes from everyone who is liquidated here, has taken its capacity, never more."""
    capacity = np.array([0.0, event.drawn["capacity_usd"]])[:, None]
    taken, went_on = (x.sum(axis=(1, 2)) for x in (event.took["vault"], event.beyond("vault")))
    assert np.all(taken <= capacity * (1 + TINY))
    assert np.all(taken >= np.where(some(went_on), capacity * (1 - TINY), 0.0))
    return bool(some(went_on[1]).any() and capacity[1, 0] > 1e3)


def winners_are_closed(event: Event) -> bool:
    """No winner has anything left to close where ADL was asked and something remains.

    At bankruptcy prices winners may lose, and their equity is shared over the markets that ask them: then only those of
    a single position are looked at. On ladders all of the other side win.
    """
    if not event.drawn["leftover"]:
        assert not np.any(some(event.took["adl"]) & event.sound[:, :, None])
        return False
    asked = some(event.took["remainder"])[:, :, ::-1]
    left, short = event.open_winners()
    if event.drawn["close_at"] == "bankruptcy":
        left &= np.count_nonzero(event.world.accounts.quantity, axis=1)[:, None, None] == 1
    of_long, of_short = (event.world.of_accounts(asked[None, :, :, s])[0] for s in (0, 1))
    assert not np.any(left & np.where(short, of_short, of_long))
    wins = np.stack([event.mark[0, 0] > 1, event.mark[0, 0] < 1], axis=1)
    assert np.all(on_ladders(event)[asked[0] & wins] < TINY * 1e6)
    return bool(asked.any())


def on_ladders(event: Event) -> np.ndarray:
    """Contracts at the first venue that no account on cross margin holds, (a s p)."""
    here, quantity = event.world.accounts.venue == 0, event.seen.holdings.quantity[0]
    count = event.world.accounts.count[here][:, None, None]
    others = [np.sum(count * np.maximum(sign * quantity[here], 0), axis=(0, -1)).T for sign in (1, -1)]
    traders = total(event.seen.record.stocks.traders)[0, 0]
    return traders * np.array([1, -1])[:, None] - np.stack(others, axis=1)


def first_pool(event: Event) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Equity of the first venue's pool after the round, at its marks; what was socialised; and rounding [USD], (p)."""
    funds, mark = event.seen.state.funds, event.mark[0, 0]
    owns = total(funds.cash)[0, 0] + np.sum((total(funds.inventory)[0, 0] + total(funds.coins)[0, 0]) * mark, axis=0)
    closed = event.of_pools(np.sum(list(event.took.values()), axis=0))[0]
    return owns, event.seen.record.hour.socialised[0, 0], 100.0 + 1e-5 * closed + 1e-6 * event.pool_usd[0]


def pool_is_dry(event: Event) -> bool:
    """It has paid all that it had where losses are socialised."""
    owns, socialised, rounding = first_pool(event)
    assert np.all(owns <= np.where(socialised > rounding, rounding, np.inf))
    return bool(np.any(socialised > rounding))


def profit_is_gone(event: Event) -> bool:
    """Nobody on cross margin can bear any more where the pool is below zero."""
    owns, socialised, rounding = first_pool(event)
    left, _ = event.open_winners()
    held = event.seen.holdings
    untaken = np.abs(held.quantity[0]) * (np.abs(event.world.of_accounts(event.mark)[0] - 1) - held.taken[0])
    bears = left & (untaken > TINY * event.world.notional[:, :, None])
    assert not np.any(bears[event.world.accounts.venue == 0][:, owns < -rounding])
    return bool(np.any((owns < -rounding) & (socialised > rounding)))


ORDER: dict[str, Callable[[Event], bool]] = {
    "book": book_is_full, "auction": auction_is_spent, "takeover": takeover_has_no_room, "vault": vault_is_full,
    "adl": winners_are_closed, "pool": pool_is_dry, "socialised losses": profit_is_gone,
}  # fmt: skip
"""What has to be so before anything goes past each; and whether anything went past it."""
ONE_ROUND = {
    "way": "one jump", "throughput_usd_per_minute": 1e15, "funding": False, "unwind_usd_per_minute": 0,
    "floor_usd": 0.0, "depth": False, "off_peg": 1e-6, "i_ref": 0.01, "drawdown_share": None,
    "take_bound_bps": st.sampled_from([10, 100]),
    "pool_usd": st.sampled_from([0.0, 1e5, 4e6]), "takeover_multiple": 3, "entry_ratio": 1.0, "fee_in_trigger": False,
    "capacity_usd": st.sampled_from([1.0, 1e6, 1e7]), "leftover": st.sampled_from([True, True, False]),
}  # fmt: skip


def test_layers_act_in_order(folder):
    """In a single round nothing goes to a layer before the ones before it have taken what they can."""
    met: set[str] = set()  # by whatever was gone past

    @given(rules(**ONE_ROUND))
    @examples(20)
    def in_any_world(drawn):
        event = Event.of(drawn, folder)
        met.update({name for name, gone_past in ORDER.items() if gone_past(event)})

    in_any_world()
    assert met == set(ORDER)


@given(rules(**ONE_ROUND | {"close_at": "bankruptcy", "pool_usd": st.sampled_from([0.0, 1e5])}))
@examples(20)
def test_winners_pay_no_more_than_they_have(folder, drawn):
    """At bankruptcy prices winners may lose, and socialised losses come on top; both leave them at least nothing."""
    event = Event.of(drawn, folder)
    held, world = event.seen.holdings, event.world
    paid = world.there & ~held.hit[0] & (held.deleveraged[0] | np.any(held.taken[0] > 0, axis=2))
    left = world.equity(held, event.mark, event.mark)[0] / world.notional
    assert np.all(left[paid] > -1e-5)
