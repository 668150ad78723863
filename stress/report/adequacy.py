"""Whether insurance funds are enough: the size that they need, and the default of their largest accounts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stress.config import Run
from stress.digests import input_digests
from stress.fund_size import fund_sizes
from stress.intervals import Estimate
from stress.report.facts import Cell
from stress.report.quantities import Fact, exactly
from stress.spec import InputError

if TYPE_CHECKING:
    from stress.cover import Cover

Reading = Literal["safe side", "lower bound", "undecided"]
Uncovered = Literal["", "population", "changed", "calm"]
"""Why there is no cover-N: accounts are synthetic, their file is not what the run read, or no price moves."""


@dataclass(frozen=True)
class Adequacy:
    """What is said of the funds of a cell."""

    facts: tuple[Fact, ...]
    readings: Mapping[str, Reading]
    """By fund: how far the size needed may be relied on."""
    uncovered: Uncovered


def adequacy(cell: Cell, *, synthetic: bool = False) -> Adequacy:
    """Sizes needed, and cover-1 and cover-2 at the moves of the path that is worst for the funds.

    Args:
        cell: Its run carries its config.
        synthetic: Cover-N of a synthetic population too, whose rows may stand for parts of an account.
    """
    sizes = fund_sizes(cell.ds, (0.99, 0.999))
    facts = []

    def put(quantity: str, estimate: Estimate, **where: str) -> None:
        facts.append(Fact(quantity, cell.scenario, cell.policy, estimate, **where))

    for name, fund in sizes.items():
        where = {"venue": name.partition("/")[0], "pool": name}
        at = fund.levels[0.999]
        put("need_q99", fund.levels[0.99].seen, **where)
        put("need_q999", at.seen, **where)
        put("need_adl_q999", at.with_adl, **where)
        if at.fitted is not None:
            put("need_fit_q999", at.fitted, **where)
        if at.seen.value > 0:
            put("size_over_need", _over(fund.size, at.seen), **where)
    uncovered, found = _covered(cell, synthetic=synthetic)
    readings: dict[str, Reading] = {name: fund.levels[0.999].reading for name, fund in sizes.items()}
    return Adequacy((*facts, *found), readings, uncovered)


def _over(size: float, need: Estimate) -> Estimate:
    """A fund's size over what it needs, above zero."""
    return Estimate(size / need.value, size / need.high, size / need.low if need.low > 0 else math.inf)


def _covered(cell: Cell, *, synthetic: bool) -> tuple[Uncovered, Iterator[Fact] | tuple[()]]:
    """Cover-N as far as the run's accounts are at hand."""
    run = cell.run
    if run.portfolio.population is not None and not synthetic:
        return "population", ()
    if not _as_read(cell, run):
        return "changed", ()
    from stress.cover import cover, worst_moves

    moves = worst_moves(cell.ds)
    if not any(moves.values()):
        return "calm", ()
    return "", _cover_facts(cell, moves, cover(run, moves, 2))


def _cover_facts(cell: Cell, moves: Mapping[str, float], covers: Mapping[str, Cover]) -> Iterator[Fact]:
    for asset, move in moves.items():
        yield Fact("cover_move", cell.scenario, cell.policy, exactly(move), item=asset)
    for name, of in covers.items():
        where = {"venue": name.partition("/")[0], "pool": name}
        yield Fact("cover_1", cell.scenario, cell.policy, exactly(_loss(of, 1)), **where)
        yield Fact("cover_2", cell.scenario, cell.policy, exactly(of.loss), **where)
        if of.loss > 0:
            yield Fact("cover_ratio", cell.scenario, cell.policy, exactly(of.ratio), **where)


def _loss(of: Cover, n: float) -> float:
    """Loss of the first `n` of the accounts that default [USD]; the last may count in part."""
    loss = 0.0
    for default in of.defaults:
        taken = min(default.copies, n)
        loss, n = loss + taken * default.loss, n - taken
    return loss


def _as_read(cell: Cell, run: Run) -> bool:
    """Whether the files of accounts are at hand, and those that the run read."""
    known = cell.ds.attrs.get("inputs_sha256", {})
    try:
        found = input_digests(run)
    except InputError:
        return False
    return all(found[key] == known.get(key) for key in ("positions", "collateral"))
