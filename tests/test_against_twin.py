"""The engine against the slow twin on a stressed population: what a ladder of cells costs in accuracy.

Six paths of two hours (crashes of 5 to 20 % and a rally, with noise) over 6,000 rows on BTC and ETH at three venues,
in float32 with 4,096 rungs: 49 bn USD are liquidated in all. Small books are exact (`test_small_books.py`); here the
cells (a trigger counts at the middle of its cell), six margin classes and one entry class take part.

Five things are approximations by design, each measured here on its own:

- **Order in the engine's queue.** A ladder admits by trigger, the prose pro rata among those triggered in a round. An
  account that waits settles when its last part is closed, so in a falling market the ladder takes its losses earlier
  and in other hands. `in_trigger_order` gives the twin the ladder's order; what is left then is everything else.
- **Partial closes** (`tiers`, `fraction`, `restore`) are further rungs that assume a close at the trigger, and no pause
  after it. An account counts as liquidated when its last rung is passed, in the twin when it is triggered first.
- **Stop orders** know bankruptcies by the mean of a rung, class by class of their place on the way to the trigger.
- **Wider margins** move all triggers of a market side by one mean.
- **Winners** are known by the mean entry price of their ladder: an account that is not in profit may be deleveraged
  in another's stead. With `pro_rata` what is left of an account is better covered and its trigger moves, exactly where
  entries are equal; with `queue` the one account that is closed in part keeps its trigger.
"""

import numpy as np
import pytest
import reference.twin
from reference.bridge import engine, in_trigger_order, twin_of, watch_as_often, where_lost
from reference.population import THIN, VENUES, paths, positions_of, stressed

MILLION = 1e6
WHOLE = {"kind": "full"}
FIFTH = {"kind": "fraction", "share": 0.2, "above_usd": 1e5}
RESTORED = {"kind": "restore", "target": 1.5}
PAUSE = {"pause_seconds": 30}
FIFTH_WITHIN = {
    "liquidation_volume": 0.008, "worst hour": 0.02, "deficit": 0.03, "surplus": 0.2, "first_round_volume": 0.08,
    "adl_volume": 0.015, "adl_haircut": 0.05,
}  # fmt: skip
RESTORED_WITHIN = {
    "liquidation_volume": 0.025, "worst hour": 0.1, "deficit": 0.15, "surplus": 0.4, "first_round_volume": 0.09,
    "adl_volume": 0.045, "adl_haircut": 0.08,
}  # fmt: skip
OTHER_RULES = {
    "a fraction": (FIFTH, FIFTH_WITHIN),
    "a fraction, a pause": (FIFTH | PAUSE, FIFTH_WITHIN),
    "restored": (RESTORED, RESTORED_WITHIN),
    "restored, a pause": (RESTORED | PAUSE, RESTORED_WITHIN),
}


@pytest.fixture
def both(monkeypatch):
    """Outputs of engine and twin for one set of changes."""

    def compare(by_trigger: bool = False, **changes):
        watch_as_often(monkeypatch)
        if by_trigger:
            monkeypatch.setattr(reference.twin, "admit", in_trigger_order)
        run, built = stressed(**changes)
        path = paths()
        return engine(path, built), twin_of(path.astype(float), run, positions_of(run, built), built)

    return compare


def by_hour(out) -> np.ndarray:
    """Liquidation volume [hour, path]."""
    return out["liquidation_volume"].sum(axis=(1, 2, 3))


def worst_hour(ours, theirs) -> float:
    """Largest relative error of an hour's volume above a million USD."""
    mine, wanted = by_hour(ours), by_hour(theirs)
    seen = wanted > MILLION
    return float(np.max(np.abs(mine[seen] / wanted[seen] - 1)))


def error(ours, theirs, name: str) -> float:
    """Relative error of a sum over the run, which must be above a million USD to count."""
    total = theirs[name].sum()
    assert total > MILLION
    return float(ours[name].sum() / total - 1)


def test_full_staging(both):
    """Measured: the worst hour 0.28 %; deficit +0.36, surplus +0.06, adl volume -0.14, haircut -0.08 %."""
    ours, theirs = both(by_trigger=True, staging=WHOLE)
    assert worst_hour(ours, theirs) < 0.01
    for name in ("deficit", "surplus", "adl_volume", "adl_haircut"):
        assert abs(error(ours, theirs, name)) < 0.02, name
    assert np.max(np.abs(ours["index_low"].min(axis=0) / theirs["index_low"].min(axis=0) - 1)) < 0.002


def test_rally_after_deleveraging(both):
    """Winners closed `pro_rata` are better covered when prices come back. Measured: the worst hour 0.28 %; deficit
    +0.36, surplus +0.03, haircut -0.08 %; without moved triggers that hour was 91 % too high."""
    ours, theirs = both(by_trigger=True, staging=WHOLE, ranking="pro_rata")
    assert by_hour(theirs)[1, -1] > 100 * MILLION
    assert worst_hour(ours, theirs) < 0.01
    for name in ("deficit", "surplus", "adl_volume", "adl_haircut"):
        assert abs(error(ours, theirs, name)) < 0.02, name


def test_full_staging_without_a_queue(both):
    """Measured: volume +0.05, deficit +0.15, surplus -1.5 % (of 3.4 M USD, a 15,000th of the volume); hours 0.24 %.

    The last path rallies after winners were deleveraged: there the twin liquidates two accounts of 14 M USD that the
    ladder had closed as winners. That hour is left out.
    """
    ours, theirs = both(staging=WHOLE, throughput=1e15)
    rally = by_hour(theirs)[1, -1]
    assert MILLION < rally < 30 * MILLION
    assert worst_hour(*({"liquidation_volume": out["liquidation_volume"][..., :-1]} for out in (ours, theirs))) < 0.01
    assert abs(error(ours, theirs, "liquidation_volume")) < 0.002
    assert abs(error(ours, theirs, "deficit")) < 0.01
    assert abs(error(ours, theirs, "surplus")) < 0.02
    assert abs(error(ours, theirs, "adl_haircut")) < 0.01


def test_order_in_the_queue(both):
    """Against the prose's order. Measured: the worst hour 0.35 %; deficit +10 (by path +2 to +14), haircut -10 %."""
    ours, theirs = both(staging=WHOLE)
    assert worst_hour(ours, theirs) < 0.01
    assert abs(error(ours, theirs, "adl_volume")) < 0.03
    assert 0 < error(ours, theirs, "deficit") < 0.13
    assert -0.13 < error(ours, theirs, "adl_haircut") < 0


def test_pools_of_a_tenth(both):
    """Pools run dry and losses are socialised. Measured: volume -0.8, deficit +1.2, adl volume -1.7, haircut -2.5,
    socialised +4.7 %; nearly all of it from the last path, where one pool is exhausted a round earlier."""
    ours, theirs = both(by_trigger=True, staging=WHOLE, pool_usd=THIN)
    bounds = {"liquidation_volume": 0.02, "deficit": 0.03, "adl_volume": 0.03, "adl_haircut": 0.05}
    for name, bound in (bounds | {"socialised_loss": 0.1}).items():
        assert abs(error(ours, theirs, name)) < bound, name
    ours, theirs = ({k: v[..., :-1] for k, v in out.items()} for out in (ours, theirs))
    assert worst_hour(ours, theirs) < 0.01
    assert abs(error(ours, theirs, "socialised_loss")) < 0.02
    assert np.mean(np.isnan(ours["fund_exhausted_hour"]) == np.isnan(theirs["fund_exhausted_hour"])) > 0.9


def test_partial_closes(both):
    """`tiers` without a queue. Measured: volume -0.5, deficit +3.8, surplus -7, first round +3.3 %; the worst hour,
    but for the rally, below 1 %."""
    ours, theirs = both(throughput=1e15)
    assert worst_hour(*({"liquidation_volume": out["liquidation_volume"][..., :-1]} for out in (ours, theirs))) < 0.015
    assert abs(error(ours, theirs, "liquidation_volume")) < 0.01
    assert abs(error(ours, theirs, "deficit")) < 0.06
    assert abs(error(ours, theirs, "surplus")) < 0.09
    assert abs(error(ours, theirs, "first_round_volume")) < 0.05


@pytest.mark.parametrize("name", OTHER_RULES)
def test_partial_closes_by_other_rules(both, name):
    """A fifth first, above 100,000 USD; and as much as restores 1.5 times the maintenance; without a queue.

    Measured, in % of the sum over the run, without a pause and with one of 30 s, which ladders cannot follow:

    |                         | fraction    | restore     |
    |-------------------------|-------------|-------------|
    | volume                  | -0.5, -0.1  | -1.8, -1.2  |
    | its worst hour          | 1.2, 1.2    | 7.8, 4.7    |
    | deficit                 | +1.4, -1.6  | +12, +7     |
    | surplus (3 or 2 M USD)  | -16, -10    | -33, -29    |
    | first round             | +6, -3      | +6, -7      |
    | adl volume              | -0.7, +0.2  | -3.3, -1.6  |
    | haircut                 | +3.3, -2.1  | +6, -1      |

    An account that a fall takes far past its trigger closes more in the twin, and at the mark, not at its trigger: the
    ladder leaves it too much equity. With `restore` the ladder ends 14 % fewer accounts than the twin triggers.
    """
    staging, bounds = OTHER_RULES[name]
    ours, theirs = both(staging=staging, throughput=1e15)
    hours = worst_hour(*({"liquidation_volume": out["liquidation_volume"][..., :-1]} for out in (ours, theirs)))
    assert hours < bounds["worst hour"]
    for output, bound in bounds.items():
        assert output == "worst hour" or abs(error(ours, theirs, output)) < bound, output


def test_defaults(both):
    """`tiers` and the queue in the prose's order. Measured: the worst hour 1.4 %; volume -0.6, deficit +12, surplus -3,
    adl volume +0.6, haircut -11 %."""
    ours, theirs = both()
    assert worst_hour(ours, theirs) < 0.02
    assert abs(error(ours, theirs, "liquidation_volume")) < 0.01
    assert 0 < error(ours, theirs, "deficit") < 0.15
    assert abs(error(ours, theirs, "surplus")) < 0.06
    assert abs(error(ours, theirs, "adl_volume")) < 0.02
    assert -0.15 < error(ours, theirs, "adl_haircut") < 0


def who_paid(ours, theirs) -> dict[str, float]:
    """What ladders make of who pays for deleveraging: mean shares, less the twin's; sums, over the twin's, less 1."""
    ours, theirs = where_lost(ours, theirs), where_lost(theirs, theirs)
    shares = ("adl_top_share", "adl_top_10_share", "adl_open_interest")
    apart = {name: float(np.nanmean(ours[name]) - np.nanmean(theirs[name])) for name in shares}
    return apart | {name: error(ours, theirs, name) for name in ("adl_volume", "adl_haircut")} | {
        "adl_overshoot": float(ours["adl_overshoot"].sum() / theirs["adl_overshoot"].sum() - 1),
        "adl_accounts": float(ours["adl_accounts"].sum() / theirs["adl_accounts"].sum() - 1),
    }  # fmt: skip


WHO_PAID = {
    "queue": {"adl_top_share": 0.05, "adl_top_10_share": 0.06, "adl_accounts": 0.02},
    "pro_rata": {"adl_top_share": 0.01, "adl_top_10_share": 0.01, "adl_accounts": 0.01},
    "water_filling": {"adl_top_share": 0.05, "adl_top_10_share": 0.1, "adl_accounts": 0.6},
}
AND_ALL = {"adl_open_interest": 1e-4, "adl_volume": 0.005, "adl_haircut": 0.005, "adl_overshoot": 0.05}


@pytest.mark.parametrize("ranking", WHO_PAID)
def test_who_pays_for_deleveraging(both, ranking):
    """The largest by position at the start stand for the largest by profit of those who win; and by water filling
    ladders close accounts whole, from the highest leverage down, where the twin lowers them all to one level.

    Measured, ladder and twin:

    |               | queue        | pro_rata     | water_filling |
    |---------------|--------------|--------------|---------------|
    | top 1 %       | 9.7, 13.1 %  | 22.9, 23.4 % | 9.7, 11.3 %   |
    | top 10 %      | 37.0, 41.8 % | 62.0, 62.6 % | 37.0, 42.8 %  |
    | accounts, k   | 569, 575     | 1526, 1526   | 569, 1074     |

    In all: overshoot -3, adl volume -0.14, haircut -0.08 %; by water filling the worst hour 0.28, deficit +0.36 %.
    """
    ours, theirs = both(by_trigger=True, staging=WHOLE, ranking=ranking)
    apart = who_paid(ours, theirs)
    for name, bound in (WHO_PAID[ranking] | AND_ALL).items():
        assert abs(apart[name]) < bound, (name, apart[name])
    assert worst_hour(ours, theirs) < 0.01
    if ranking == "water_filling":
        assert apart["adl_top_share"] < -0.01
        assert apart["adl_accounts"] < -0.3


HELD = {
    "stop-losses": {"behaviour": {"stop_losses": {"adoption": 0.3, "nearest": 0.5, "farthest": 0.9}}},
    "wider margins": {
        f"venues__{name}__breaker": {"move": 0.05, "minutes": 5, "pause_minutes": 60, "margin_times": 2}
        for name in VENUES
    },
}


HELD_WITHIN = {
    "liquidation_volume": 0.002, "stop_volume": 0.01, "deficit": 0.03, "surplus": 0.06, "adl_volume": 0.005,
    "adl_haircut": 0.04, "first_round_volume": 0.01, "accounts_liquidated": 0.03,
}  # fmt: skip


@pytest.mark.parametrize("name", HELD)
def test_holders_and_margins(name, monkeypatch):
    """The crashes of 12 and 20 %, 2,000 rows, without a queue. Measured, in % of the sum over the run:

    |                     | stop-losses | wider margins |
    |---------------------|-------------|---------------|
    | volume              | -0.05       | 0.00          |
    | its worst hour      | 0.13        | 0.01          |
    | stop volume         | -0.4        |               |
    | deficit             | 0.0         | +1.5          |
    | surplus             | +0.2        | -3.1          |
    | adl volume, haircut | -0.1, -2.0  | -0.1, +1.9    |
    | accounts            | -1.5        | 0.0           |
    """
    watch_as_often(monkeypatch)
    run, built = stressed(rows=2000, staging=WHOLE, throughput=1e15, **HELD[name])
    path = paths()[..., 2:4]
    ours, theirs = engine(path, built), twin_of(path.astype(float), run, positions_of(run, built), built)
    assert (theirs["stop_volume"].sum() > 1e9) == (name == "stop-losses")
    for output, bound in HELD_WITHIN.items():
        assert theirs[output].sum() == 0 or abs(error(ours, theirs, output)) < bound, output
    assert worst_hour(ours, theirs) < 0.005
