"""The sections before the results: summary, scope, scenarios."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stress.days import has_days
from stress.report.document import Block, Bullets, Entry, Paragraph, Table, entry, head
from stress.report.facts import Cell
from stress.report.language import packaged
from stress.report.sources import distinct
from stress.report.story import Story
from stress.venue_table import rules

_SHORT = ("run_mean", "hour_q99", "day_q99", "chance_hour", "exhausted_any", "adl_mean", "socialised_mean")
_FUND = ("fund_size", "need_q999", "exhausted")
_MOST_ROWS = 8
"""Cells in the summary, which is one page; the first policy of each scenario alone where there are more."""


def summary(story: Story) -> Iterator[Block]:
    """The answer, what comes out in short, and whether each fund is enough."""
    text, cell = story.language.text, story.worst
    if story.several:
        scenarios, policies = len(story.firsts), len(story.cells) // len(story.firsts)
        kind = "several_rules" if scenarios == 1 else "several_scenarios" if policies == 1 else "several"
        yield Paragraph(
            text(f"section.summary.{kind}", scenarios=scenarios, policies=policies, scenario=cell.scenario,
                 policy=cell.policy)
        )  # fmt: skip
    yield Paragraph(_volume(story, cell), lead=True)
    yield Paragraph(_funds(story, cell), lead=True)
    yield in_short(story, story.cells if len(story.cells) <= _MOST_ROWS else story.firsts)
    yield _enough(story, cell)
    found = [source for part in distinct([first.config for first in story.firsts]) for source in part]
    assumed = sum(source.trust in ("assumed", "none") for source in found)
    fresh = any((each.config.get("behaviour") or {}).get("inflow") for each in story.cells)
    book = text(f"section.summary.{'fresh' if fresh else 'aging'}")
    yield Paragraph(text("section.summary.caution", assumed=assumed, sources=len(found), book=book))


def _volume(story: Story, cell: Cell) -> str:
    language = story.language
    hour = story.sure("hour_q99", cell)
    chance = next(iter(story.facts.items("chance_hour", cell.scenario, cell.policy)))
    return language.text(
        "section.summary.volume",
        hours=cell.ds.sizes["hour"],
        hour=language.amount(hour),
        hour_interval=_interval(story, language.interval(hour)),
        threshold=f"{language.number(float(chance.item), 'usd')} USD",
        chance=language.value(chance),
        chance_interval=_interval(story, language.interval(chance)),
    )


def _interval(story: Story, words: str) -> str:
    return story.language.text("section.summary.interval", interval=words) if words else ""


def _funds(story: Story, cell: Cell) -> str:
    language, empty = story.language, story.fact("exhausted_any", cell)
    if empty is None:
        return language.text("section.summary.funds_none")
    if empty.value == 0:
        high = language.number(empty.estimate.high, "percent")
        paths = language.count(story.sure("paths", cell).value)
        return language.text("section.summary.funds_last", paths=paths, high=high)
    return language.text(
        "section.summary.funds_fail",
        chance=language.value(empty),
        interval=_interval(story, language.interval(empty)),
        socialised=language.amount(story.sure("socialised_mean", cell)),
    )


def in_short(story: Story, shown: Sequence[Cell]) -> Table:
    """A row a cell."""
    language = story.language
    label = [language.text(f"section.summary.{name}") for name in ("scenario", "policy")]
    rows = []
    for cell in shown:
        threshold = {"chance_hour": next(iter(story.facts.items("chance_hour", cell.scenario, cell.policy))).item}
        found = [story.fact(name, cell, item=threshold.get(name, "")) for name in _SHORT]
        names = [Entry(cell.scenario), *([Entry(cell.policy)] if story.several else [])]
        rows.append([*names, *(entry(fact, language) for fact in found)])
    heads = [*label[: 2 if story.several else 1], *(head(name, language) for name in _SHORT)]
    return Table(language.text("section.summary.cells"), heads, rows, story.source(shown[0]))


def _enough(story: Story, cell: Cell) -> Table:
    language = story.language
    rows = [(name, {"venue": name.partition("/")[0], "pool": name}) for name in story.pools(cell)]
    table = story.table(
        language.text("section.summary.funds"), cell, language.text("section.summary.fund"), rows, _FUND
    )
    readings = [Entry(verdict(story, cell, name)) for name in story.pools(cell)]
    return Table(
        table.caption,
        [*table.columns, language.text("section.summary.verdict")],
        [[*row, reading] for row, reading in zip(table.rows, readings, strict=True)],
        table.source,
    )


def verdict(story: Story, cell: Cell, pool: str) -> str:
    """How far the size that a fund needs may be relied on, in words."""
    money = story.sure("fund_size", cell, venue=pool.partition("/")[0], pool=pool).value > 0
    reading = story.adequacy[cell.scenario, cell.policy].readings[pool]
    return story.language.text(f"reading.{reading if money else 'none'}")


def scope(story: Story) -> Iterator[Block]:
    """What was simulated, whose positions, under which rules."""
    text = story.language.text
    yield Paragraph(text("section.scope.intro"))
    item, value = text("section.scope.item"), text("section.scope.value")
    for cell in story.firsts[:1]:
        rows = [[Entry(text(f"section.scope.{name}")), Entry(words)] for name, words in _facts(story, cell)]
        yield Table(text("section.scope.facts"), [item, value], rows, text("words.config"))
        each = [rules(venue) for venue in cell.run.venues.values()]
        yield Table(
            text("section.scope.rules"),
            [text("section.scope.rule"), *(rule["venue"] for rule in each)],
            [[Entry(name), *(Entry(rule[name]) for rule in each)] for name in list(each[0])[1:]],
            text("words.config"),
        )
    yield Paragraph(text("section.scope.english"))


def _facts(story: Story, cell: Cell) -> Iterator[tuple[str, str]]:
    language, config, sizes = story.language, cell.config, cell.ds.sizes
    text, portfolio = language.text, config["portfolio"]
    yield "name", ", ".join(dict.fromkeys(str(each.ds.attrs["name"]) for each in story.cells))
    yield "venues", ", ".join(config["venues"])
    yield "assets", ", ".join(config["assets"])
    after = text("section.scope.horizon_days", days=sizes["day"] - 1) if has_days(cell.ds) else ""
    yield "horizon", text("section.scope.horizon_value", hours=sizes["hour"], step=config["step_seconds"]) + after
    drawn = text("section.scope.paths_value", paths=language.count(sizes["path"]), seed=cell.ds.attrs["seed"])
    if config.get("sampling"):  # Of kind importance: figures of the others are refused.
        drawn += text("section.scope.paths_weighted", worth=language.count(story.sure("effective_paths", cell).value))
    yield "paths", drawn
    if portfolio["population"] is not None:
        of = portfolio["population"]
        yield (
            "portfolio",
            text("section.scope.population", interest=language.number(of["open_interest_usd"], "usd"),
                 rows=language.count(of["rows"]), block=language.number(portfolio["block_usd"], "usd")),
        )  # fmt: skip
    else:
        files = [("positions", portfolio["positions"]), ("collateral", portfolio["collateral"])]
        named = [text(f"section.scope.{kind}", file=name.rpartition("/")[2]) for kind, name in files if name]
        yield "portfolio", ", ".join(named)
    yield "funds", f"{language.value(story.sure('fund_size_total', cell))} USD"
    if story.several:
        yield "policies", ", ".join(dict.fromkeys(each.policy for each in story.cells if each.policy))


def scenarios(story: Story) -> Iterator[Block]:
    """What moves prices, how far they go, and how that compares with what was recorded."""
    text = story.language.text
    yield Paragraph(text("section.scenarios.intro"))
    said = [" ".join(str(cell.config.get("description", "")).split()) for cell in story.firsts]
    if len(set(said)) == 1 and said[0]:  # In a suite it is that of the base, which all scenarios share.
        yield Paragraph(text("section.scenarios.description", description=said[0]))
    for cell, description in zip(story.firsts, said, strict=True):
        config = cell.config
        shock = config["shock"]
        yield Paragraph(
            text("section.scenarios.kind", name=cell.scenario, kind=shock["kind"], what=_shock(story, shock))
        )
        if len(set(said)) > 1 and description:
            yield Paragraph(text("section.scenarios.description", description=description))
        source = " ".join(str(shock.get("source", "")).split())
        yield Paragraph(text("section.scenarios.source", source=source) if source
                        else text("section.scenarios.no_source"))  # fmt: skip
        over = [
            text("section.scenarios.overlay", kind=each["kind"],
                 where=text("section.scenarios.overlay_at", venue=each["venue"]) if each.get("venue") else "")
            for each in config.get("overlays", ())
        ]  # fmt: skip
        if over:
            yield Bullets(over)
        rows = [(str(asset), {"item": str(asset)}) for asset in cell.ds["asset"].values]
        quantities = ("low_q50", "low_q01", "low_q001", "low_lowest", "high_q99", "high_q999")
        caption = text("section.scenarios.moves", scenario=cell.scenario)
        yield story.table(caption, cell, text("section.scenarios.asset"), rows, quantities)
    yield from _recorded(story)


def _shock(story: Story, shock: Mapping[str, Any]) -> str:
    """What a shock does, in words; nothing of those that recorded prices draw."""
    text, number = story.language.text, story.language.number
    if shock["kind"] == "prescribed":
        parts = []
        for asset, moves in shock["moves"].items():
            points = [text("section.scenarios.point", move=number(move, "signed"), minutes=f"{minutes:g}")
                      for minutes, move in zip(shock["minutes"], moves, strict=True)]  # fmt: skip
            parts.append(text("section.scenarios.points", asset=asset, moves=", ".join(points)))
        others = [text("section.scenarios.beta", asset=shock["beta_of"])] if shock["beta"] else []
        return text("section.scenarios.prescribed", moves="; ".join([*parts, *others]))
    if not shock.get("daily_volatility"):
        return ""
    asset, volatility = next(iter(shock["daily_volatility"].items()))
    drawn = text("section.scenarios.drawn", asset=asset, volatility=number(volatility, "percent"))
    rate = (shock.get("common") or {}).get("per_day")
    return drawn + (text("section.scenarios.jumps", rate=number(rate, "times")) if rate else "")


def _recorded(story: Story) -> Iterator[Block]:
    """Recorded falls, and how often the runs go further."""
    text, language = story.language.text, story.language
    falls = tomllib.loads(packaged("data", "records.toml").decode())["falls"]
    there = {str(asset) for cell in story.firsts for asset in cell.ds["asset"].values}
    falls = [fall for fall in falls if fall["asset"] in there]
    if not falls:
        return
    yield Paragraph(text("section.scenarios.plausible"))
    heads = [text(f"section.scenarios.{name}") for name in ("asset", "falls_when", "falls_move", "falls_within")]
    whens = [language.days(fall["first"], fall["last"]) for fall in falls]
    rows = [
        [Entry(fall["asset"]), Entry(when), Entry(language.number(fall["move"], "signed"), number=True),
         Entry(f"{text('section.scenarios.falls_hours', hours=fall['hours'])} ({text('trust.' + fall['trust'])})"),
         *(entry(story.fact("beyond", cell, item=f"{fall['asset']} {fall['move']:g}"), language)
           for cell in story.firsts)]
        for when, fall in zip(whens, falls, strict=True)
    ]  # fmt: skip
    beyond = [text("section.scenarios.falls_beyond", scenario=cell.scenario) for cell in story.firsts]
    source = "; ".join(dict.fromkeys(f"{when}: {fall['source']}" for when, fall in zip(whens, falls, strict=True)))
    yield Table(text("section.scenarios.falls"), [*heads, *beyond], rows, source)
