"""The sections of the page, each as HTML. What a run folder lacks, its section says, or is left out."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from i2i.evaluation.log_record import Log, Message
from i2i.tools.report.charts import chart, exact, thinned
from i2i.tools.report.markup import escape, facts, left_out, number, table
from i2i.tools.report.pictures import Layout, Pair, Shown
from i2i.tools.report.run_record import RunRecord


def section(name: str, title: str, content: str) -> str:
    """A section with its heading; nothing without content."""
    if not content:
        return ""
    return f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{title}</h2>\n{content}</section>\n'


def summary(run: RunRecord) -> str:
    """How the run stands, in a line."""
    log, status = run.log, run.status
    state = str(status.get("status", "unknown state"))
    words = [
        f"step {number(log.last.get('step', status.get('step', 0)))}",
        *(f"{name} {number(log.last[name])}" for name in ("images", "epoch", "lr") if name in log.last),
        *(escape(run.config[name], 60) for name in ("generator", "direction") if name in run.config),
        *([f"as of {escape(status['time'], 60)}"] if "time" in status else []),
    ]
    chip = f'<span class="chip" data-state="{escape(state, 30)}">{escape(state, 30)}</span>'
    return f'<p class="lead">{chip} ' + " · ".join(words) + "</p>\n"


def notices(lines: Sequence[str]) -> str:
    """What was left out and what could not be read."""
    items = "".join(f"<li>{escape(line, 500)}</li>\n" for line in lines[:50])
    return f'<ul class="notices">{items}</ul>\n{left_out(len(lines) - 50, "notices")}' if lines else ""


def health(log: Log) -> str:
    """Messages of kind `health`, then what else happened."""
    content = _messages(log.health) or '<p class="note">The log has no health messages.</p>\n'
    counts = {"skipped steps": log.skipped, "values that were not finite": log.not_finite}
    told = [f"{count:,} {what}" for what, count in counts.items() if count]
    content += f"<p>{', '.join(told)}</p>\n" if told else ""
    if log.events:
        content += f"<details><summary>Events ({len(log.events)})</summary>{_messages(log.events)}</details>\n"
    return section("health", "Health", content + left_out(log.other_messages, "messages"))


def _messages(messages: Mapping[str, Message]) -> str:
    items = "".join(
        f"<li><span>{_when(m)}</span> {f'<b>{escape(m.name)}</b>: ' if m.name else ''}{escape(m.text)}</li>\n"
        for m in messages.values()
    )
    return f'<ul class="messages">{items}</ul>\n' if items else ""


def _when(message: Message) -> str:
    if message.first is None:
        return f"{message.count} times" if message.count > 1 else ""
    first = f"step {number(message.first)}"
    return first if message.count == 1 else f"{first} to {number(message.last)}, {message.count} times"


def samples(grids: Sequence[tuple[int, Shown]], layout: Layout | None) -> str:
    """The last grid, the earlier ones folded away; the script makes a scrubber of them."""
    if not grids:
        return ""
    legend = ""
    if layout:
        names = ", ".join(escape(name, 60) for name in layout.columns)
        legend = f'<p class="note">Columns from left to right: {names}.</p>\n'
    figures = [_grid(step, grid) for step, grid in grids]
    earlier = "".join(figures[:-1])
    scrubber = (
        '<div class="scrubber" hidden><button type="button" aria-label="Earlier grid">‹</button>'
        f'<input type="range" min="0" max="{len(grids) - 1}" step="1" value="{len(grids) - 1}" aria-label="Step">'
        '<button type="button" aria-label="Later grid">›</button><output></output></div>\n'
    )
    folded = f'<details class="earlier"><summary>Earlier grids ({len(grids) - 1})</summary>{earlier}</details>\n'
    content = (
        f'{legend}<div class="grids">{scrubber if earlier else ""}{figures[-1]}{folded if earlier else ""}</div>\n'
    )
    return section("samples", "Samples through time", content)


def _grid(step: int, grid: Shown) -> str:
    return f'<figure data-step="{step}">{image(grid)}<figcaption>Step {step:,}</figcaption></figure>\n'


def image(picture: Shown, css: str = "") -> str:
    kind = f' class="{css}"' if css else ""
    return (
        f'<img{kind} src="{picture.uri}" width="{picture.width}" height="{picture.height}" '
        f'alt="{escape(picture.label, 300)}">'
    )


def comparisons(pairs: Sequence[Pair], name: str, title: str, note: str) -> str:
    """Pairs side by side; the script lays them over each other with a slider. `note` is HTML."""
    figures = "".join(
        f'<figure class="compare"><div class="pair">{image(pair.before, "before")}{image(pair.after, "after")}</div>'
        f"<figcaption>{escape(pair.label, 300)}</figcaption></figure>\n"
        for pair in pairs
    )
    note = f'<p class="note">{note}</p>\n'
    return section(name, title, f'{note}<div class="cards">{figures}</div>\n' if figures else "")


def curves(log: Log) -> str:
    """A chart per loss and per metric of the validations."""
    metrics = "".join(chart(name, exact(series), points=True) for name, series in log.metrics.items())
    losses = "".join(chart(name, thinned(series)) for name, series in log.losses.items())
    content = ""
    if metrics:
        content += f'<h3>Validation</h3>\n<div class="charts">{metrics}</div>\n'
    if losses:
        content += (
            '<h3>Losses</h3>\n<p class="note">Line: smoothed mean; band: 5th to 95th percentile of the steps '
            f'around.</p>\n<div class="charts">{losses}</div>\n'
        )
    content = content or '<p class="note">The log has no steps yet.</p>\n'
    return section("curves", "Curves", content + left_out(len(log.other_series), "curves"))


def configuration(run: RunRecord) -> str:
    """Configuration, environment, command and model files."""
    content = f"<h3>Options</h3>\n{facts(run.config)}" if run.config else ""
    content += f"<h3>Environment</h3>\n{facts(run.environment)}" if run.environment else ""
    content += f'<h3>Command</h3>\n<pre tabindex="0">{escape(run.command.strip())}</pre>\n' if run.command else ""
    if run.models:
        header = ("file", "network", "from", "to", "steps", "MB", "algorithm", "i2i")
        rows = [
            [
                escape(name),
                *(escape(value, 60) for value in (info.network, info.input_domain, info.output_domain)),
                number(info.training.steps),
                f"{size / 1e6:.1f}",
                *(escape(value, 60) for value in (info.training.algorithm, info.training.version)),
            ]
            for name, (info, size) in run.models.items()
        ]
        content += "<h3>Model files</h3>\n" + table(header, rows, "Model files")
    return section("configuration", "Configuration", content)


def columns_of(rows: Sequence[Mapping[str, Any]], limit: int) -> list[str]:
    """The keys of the rows in the order in which they first appear, at most `limit`."""
    return list(dict.fromkeys(itertools.chain.from_iterable(rows)))[:limit]
