"""The sections of results: volumes, layers, funds and deleveraging by venue; the funds' adequacy; concentration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from stress.report import pictures
from stress.report.days import days_after
from stress.report.document import Block, Entry, Figure, Heading, Paragraph, Table, entry, head
from stress.report.facts import Cell
from stress.report.front import verdict
from stress.report.quantities import Fact
from stress.report.story import Story

_VOLUME = ("run_mean", "hour_q50", "hour_q99", "hour_q999", "day_q50", "day_q99", "day_q999")
_TOTALS = ("hour_q95", "hour_shortfall", "hour_largest", "day_q95", "tail_hour_q999", "tail_day_q999")
_FUNDS = ("fund_size", "fall_q50", "fall_q99", "fall_q999", "fall_largest", "exhausted", "deficit_mean")
_SOCIALISED = ("deficit_hour_q999", "deficit_largest", "socialised_mean", "socialised_q99", "socialised_chance")
_ADL = ("adl_mean", "adl_q99", "adl_chance", "adl_haircut_mean", "adl_top_share", "adl_open_interest")
_VAULTS = ("vault_mean", "vault_smallest", "vault_exhausted")
_NEED = ("fund_size", "need_q99", "need_q999", "need_fit_q999", "need_adl_q999", "size_over_need")
_COVER = ("fund_size", "cover_1", "cover_2", "cover_ratio")
_MARKETS = ("interest_market", "share_market", "market_hour_q999")

Rows = Sequence[tuple[str, Mapping[str, str]]]


def results(story: Story) -> Iterator[Block]:
    """By scenario, under the first policy: by hour and day, by layer, by fund, by venue."""
    text = story.language.text
    yield Paragraph(text("section.results.intro"))
    if len(story.cells) > len(story.firsts):
        yield Paragraph(text("section.results.first", policy=story.cells[0].policy))
    for i, cell in enumerate(story.firsts):
        if len(story.firsts) > 1:
            yield Heading(text("section.results.scenario", scenario=cell.scenario))
        yield from _volumes(story, cell, f"s{i}")
        yield _layers(story, cell, f"s{i}")
        yield from _backstops(story, cell)
        yield from days_after(story, cell)


def venues(story: Story, cell: Cell) -> Rows:
    """A row a venue."""
    return [(str(name), {"venue": str(name)}) for name in cell.ds["venue"].values]


def funds(story: Story, cell: Cell) -> Rows:
    """A row an insurance fund."""
    return [(name, {"venue": name.partition("/")[0], "pool": name}) for name in story.pools(cell)]


def _volumes(story: Story, cell: Cell, name: str) -> Iterator[Block]:
    text, language = story.language.text, story.language
    rows = [(text("words.all"), {}), *venues(story, cell)]
    caption = text("section.results.volume", scenario=cell.scenario)
    yield story.table(caption, cell, text("section.results.venue"), rows, _VOLUME)
    found = [fact for quantity in _TOTALS if (fact := story.fact(quantity, cell))]
    lines = [[Entry(head(fact.quantity, language)), entry(fact, language)] for fact in found]
    for quantity in ("chance_hour", "chance_day"):
        for fact in story.facts.items(quantity, cell.scenario, cell.policy):
            threshold = f"{language.number(float(fact.item), 'usd')} USD"
            label = text("section.results.threshold", quantity=text(f"quantity.{quantity}"), threshold=threshold)
            lines.append([Entry(label), entry(fact, language)])
    heads = [text("section.results.quantity"), text("section.results.value")]
    yield Table(text("section.results.totals", scenario=cell.scenario), heads, lines, story.source(cell))
    yield _fan(story, cell, f"{name}-fan")
    yield _exceedance(story, cell, f"{name}-exceedance")


def _fan(story: Story, cell: Cell, name: str) -> Figure:
    text, language = story.language.text, story.language
    quantities = ("fan_q50", "fan_q95", "fan_q99")
    lines = [story.facts.items(quantity, cell.scenario, cell.policy) for quantity in quantities]
    rows = [(fact.item, {"item": fact.item}) for fact in lines[0]]
    words = {quantity: text(f"quantity.{quantity}") for quantity in quantities}
    words |= {axis: text(f"section.results.fan_{axis}") for axis in "xy"}
    top = max(lines[2], key=lambda fact: fact.value)
    said = text("section.results.fan_alt", hour=top.item, value=language.amount(top),
                first=language.amount(lines[0][0]), last=language.amount(lines[0][-1]))  # fmt: skip
    caption = text("section.results.fan", scenario=cell.scenario)
    table = story.table(caption, cell, text("section.results.hour"), rows, quantities)
    return Figure(name, caption, said, pictures.fan(lines, words, language, name), table)


def _exceedance(story: Story, cell: Cell, name: str) -> Figure:
    text, language = story.language.text, story.language
    found = story.facts.items("exceedance", cell.scenario, cell.policy)
    threshold = next(iter(story.facts.items("chance_hour", cell.scenario, cell.policy))).item
    over = next(fact for fact in found if float(fact.item) == float(threshold))
    amount = f"{language.number(float(threshold), 'usd')} USD"
    words = {axis: text(f"section.results.exceedance_{axis}") for axis in "xy"}
    words |= {"interval": text("section.results.interval"), "at": threshold, "mark": amount}
    caption = text("section.results.exceedance", scenario=cell.scenario)
    said = text("section.results.exceedance_alt", share=language.value(over), threshold=amount)
    rows = [(language.number(float(fact.item), "usd"), {"item": fact.item}) for fact in found]
    table = story.table(caption, cell, text("section.results.above"), rows, ("exceedance",))
    return Figure(name, caption, said, pictures.exceedance(found, words, language, name), table)


def _layers(story: Story, cell: Cell, name: str) -> Figure:
    """Layers of all venues as a picture, of each in the table."""
    text, language = story.language.text, story.language
    found = story.facts.items("layer_mean", cell.scenario, cell.policy)
    labels = [language.known(f"layer.{fact.item}", fact.item) for fact in found]
    most = max(found, key=lambda fact: fact.value)
    share = story.sure("layer_share", cell, item=most.item)
    each = venues(story, cell)
    rows = [
        [Entry(label), entry(fact, language), entry(story.fact("layer_share", cell, item=fact.item), language),
         *(entry(story.fact("layer_mean", cell, item=fact.item, **where), language) for _, where in each)]
        for label, fact in zip(labels, found, strict=True)
    ]  # fmt: skip
    caption = text("section.results.layers", scenario=cell.scenario)
    heads = [text("section.results.layer"), f"{text('words.all')} [USD]", text("quantity.layer_share"),
             *(f"{venue} [USD]" for venue, _ in each)]  # fmt: skip
    said = text("section.results.layers_alt", layer=language.known(f"layer.{most.item}", most.item),
                value=language.amount(most), share=language.value(share))  # fmt: skip
    picture = pictures.bars(found, labels, {"x": text("section.results.layers_x")}, language, f"{name}-layers")
    return Figure(f"{name}-layers", caption, said, picture, Table(caption, heads, rows, story.source(cell)))


def _backstops(story: Story, cell: Cell) -> Iterator[Table]:
    text = story.language.text
    rows, fund = funds(story, cell), text("section.results.fund")
    for key, quantities in (("funds", _FUNDS), ("socialised", _SOCIALISED)):
        yield story.table(text(f"section.results.{key}", scenario=cell.scenario), cell, fund, rows, quantities)
    venue, rows = text("section.results.venue"), [(text("words.all"), {}), *venues(story, cell)]
    yield story.table(text("section.results.adl", scenario=cell.scenario), cell, venue, rows, _ADL)
    vaulted = [row for row in venues(story, cell) if story.fact("vault_mean", cell, **row[1])]
    if vaulted:
        yield story.table(text("section.results.vaults", scenario=cell.scenario), cell, venue, vaulted, _VAULTS)


def adequacy(story: Story) -> Iterator[Block]:
    """Sizes needed, and the default of the largest accounts."""
    text, fund = story.language.text, story.language.text("section.results.fund")
    yield Paragraph(text("section.adequacy.intro"))
    yield Paragraph(text("section.adequacy.reading"))
    for i, cell in enumerate(story.firsts):
        table = story.table(
            text("section.adequacy.size", scenario=cell.scenario), cell, fund, funds(story, cell), _NEED
        )
        verdicts = [Entry(verdict(story, cell, name)) for name in story.pools(cell)]
        columns = [*table.columns, text("section.summary.verdict")]
        rows = [[*row, said] for row, said in zip(table.rows, verdicts, strict=True)]
        yield _sizes(story, cell, f"s{i}-sizes", Table(table.caption, columns, rows, table.source))
        yield from _cover(story, cell)


def _sizes(story: Story, cell: Cell, name: str, table: Table) -> Figure:
    text, language = story.language.text, story.language
    labels = story.pools(cell)
    have, need = (
        [story.sure(quantity, cell, **where) for _, where in funds(story, cell)]
        for quantity in ("fund_size", "need_q999")
    )
    said = "; ".join(
        text("section.adequacy.size_alt_item", fund=fund, size=language.amount(a), need=language.amount(b))
        for fund, a, b in zip(labels, have, need, strict=True)
    )
    words = {"x": text("section.adequacy.size_x")} | {key: text(f"section.adequacy.{key}") for key in ("have", "need")}
    return Figure(
        name,
        text("section.adequacy.size_figure", scenario=cell.scenario),
        text("section.adequacy.size_alt", list=said),
        pictures.sizes(have, need, labels, words, language, name),
        table,
    )


def _cover(story: Story, cell: Cell) -> Iterator[Block]:
    text, why = story.language.text, story.adequacy[cell.scenario, cell.policy].uncovered
    if why:
        yield Paragraph(text(f"section.adequacy.{why}", scenario=cell.scenario))
        return
    caption = text("section.adequacy.cover", scenario=cell.scenario)
    yield story.table(caption, cell, text("section.results.fund"), funds(story, cell), _COVER)
    from stress.cover import left_out

    absent = left_out(cell.run, text("section.adequacy.overlay"))
    if absent:
        yield Paragraph(text("section.adequacy.left_out", list=", ".join(absent)))
    rows = [(asset, {"item": asset}) for asset in map(str, cell.ds["asset"].values)]
    caption = text("section.adequacy.moves", scenario=cell.scenario)
    yield story.table(caption, cell, text("section.scenarios.asset"), rows, ("cover_move",))
    yield Paragraph(text("section.adequacy.cover_text"))


def concentration(story: Story) -> Iterator[Block]:
    """By side, asset and market."""
    text, language = story.language.text, story.language
    yield Paragraph(text("section.concentration.intro"))
    for cell in story.firsts:
        shares: list[tuple[str, Fact]] = [(text("section.concentration.longs"), story.sure("share_long", cell))]
        shares += [(fact.item, fact) for fact in story.facts.items("share_asset", cell.scenario, cell.policy)]
        rows = [[Entry(label), entry(fact, language)] for label, fact in shares]
        heads = [text(f"section.concentration.{name}") for name in ("of", "share")]
        caption = text("section.concentration.shares", scenario=cell.scenario)
        yield Table(caption, heads, rows, story.source(cell))
        markets = [
            (f"{venue} {fact.item}", {"venue": venue, "item": fact.item})
            for venue, _ in venues(story, cell)
            for fact in story.facts.items("share_market", cell.scenario, cell.policy, venue)
        ]
        caption = text("section.concentration.markets", scenario=cell.scenario)
        yield story.table(caption, cell, text("section.concentration.market"), markets, _MARKETS)
