"""HTML from tables, figures and panels. Whatever comes from data or files goes through `text`."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable

from .drawing import Drawn
from .panels import CLEAN, Panel
from .tables import Table

__all__ = ["figure", "items", "panel", "paragraph", "table", "text"]

_WIDE, _LONG = 8, 25  # columns that need smaller print; rows that a page does not hold
_VERDICTS = ("better", "worse")


def text(words: object) -> str:
    """Words as HTML that shows them and does nothing else."""
    return html.escape(str(words), quote=True)


def paragraph(*sentences: str, kind: str = "") -> str:
    """A paragraph of plain sentences."""
    marked = f' class="{text(kind)}"' if kind else ""
    return f"<p{marked}>{' '.join(text(sentence) for sentence in sentences)}</p>"


def items(sentences: Iterable[str]) -> str:
    """A list of plain sentences."""
    return "<ul>\n" + "\n".join(f"<li>{text(sentence)}</li>" for sentence in sentences) + "\n</ul>"


def table(content: Table, number: int, ours: str) -> str:
    """A table with its caption; titles and names of rows have their scope."""
    head, *rows = content.rows
    kinds = [kind for kind, so in (("wide", len(head) > _WIDE), ("long", len(rows) > _LONG)) if so]
    lines = [
        f'<div class="scroll" tabindex="0" role="group" aria-label="Table {number}">',
        f'<table class="{" ".join(kinds)}">' if kinds else "<table>",
        f"<caption><b>Table {number}.</b> {text(content.caption)}</caption>",
        "<thead><tr>" + "".join(f'<th scope="col">{text(title)}</th>' for title in head) + "</tr></thead>",
        "<tbody>",
    ]
    for first, *cells in rows:
        marked = ' class="ours"' if first == ours else ""
        written = "".join(map(_cell, cells))
        lines.append(f'<tr{marked}><th scope="row">{text(first)}</th>{written}</tr>')
    return "\n".join([*lines, "</tbody>", "</table>", "</div>"])


def _cell(cell: str) -> str:
    if cell in _VERDICTS:
        return f'<td class="{cell}">{cell}</td>'
    # A line may break before an interval, but neither in it nor in the value.
    value, bracket, interval = cell.partition(" [")
    if bracket and cell[:1] in "+−0123456789":
        inside, _, after = interval.partition("]")
        kept = text(f"[{inside}]{after.partition(';')[0]}").replace(" ", "&nbsp;")
        more = after.partition(";")[2]
        return f"<td>{text(value)} <span>{kept}</span>{f'<br>{text(more.strip())}' if more else ''}</td>"
    return f"<td>{text(cell)}</td>"


def figure(drawn: Drawn, number: int) -> str:
    """A figure inside the page."""
    address = "data:image/png;base64," + base64.b64encode(drawn.png).decode()
    return (
        f'<figure><div class="plot"><img src="{address}" alt="{text(drawn.alt)}"></div>\n'
        f"<figcaption><b>Figure {number}.</b> {text(drawn.caption)}</figcaption></figure>"
    )


def panel(content: Panel, number: int, ours: str) -> str:
    """A panel: pictures side by side, which the page's script makes a viewer with a slider of."""
    names = [picture.name for picture in content.pictures]
    methods = [name for name in names if name != CLEAN]
    chosen = ours if ours in methods else methods[-1]
    before = [name for name in ("noisy", CLEAN) if name in names]
    low, high = content.window
    place = f"panel-{number}"
    stored = "\n".join(
        f'<li><img src="{picture.address}" data-name="{text(picture.name)}" data-low="{picture.low!r}" '
        f'data-high="{picture.high!r}" width="{content.shape[1]}" height="{content.shape[0]}" '
        f'alt="{text(picture.name)}"> {text(picture.name)}</li>'
        for picture in content.pictures
    )
    parts = "".join(
        f'<figure class="{kind}"><canvas data-part="{part}" role="img"></canvas>'
        f'<figcaption data-part="{part}-caption"></figcaption></figure>'
        for part, kind in (("left", "base"), ("right", "over processed"), ("residual", "over difference"))
    )
    cut = " The middle of the window that was judged." if content.cut else ""
    return f"""<section class="panel" data-low="{low!r}" data-high="{high!r}" data-sigma="{content.sigma!r}" \
data-shows="picture" aria-labelledby="{place}">
<h3 id="{place}">Scene {number}: {text(content.title)}</h3>
<p class="under">{content.shape[1]} × {content.shape[0]} pixels.{cut} Black is {255 * low:.0f}, white is \
{255 * high:.0f} in 1/255 of the image’s range: the 0.5 % and 99.5 % quantiles of the clean image.</p>
<div class="viewer">
<div class="controls">
<label>Left <select data-part="before">{_options(before, before[0])}</select></label>
<label>Right <select data-part="after">{_options(methods, chosen)}</select></label>
<label><input type="checkbox" data-part="switch"> Residual (right − left)</label>
<label>Zoom <select data-part="zoom"><option value="fit">fit</option><option value="1">1×</option>\
<option value="2">2×</option><option value="4">4×</option><option value="8">8×</option></select></label>
</div>
<div class="hold"><div class="frame" data-part="frame">{parts}<span class="bar"></span>\
<span class="tag first" data-part="left-label"></span>\
<span class="tag second" data-part="right-label"></span></div></div>
<input class="slide" type="range" min="0" max="100" value="50" data-part="slider" \
aria-label="Share of the left picture">
<p class="scale" data-part="scale" aria-live="polite"></p>
</div>
<ul class="stored">
{stored}
</ul>
</section>"""


def _options(names: Iterable[str], chosen: str) -> str:
    return "".join(
        f'<option value="{text(name)}"{" selected" if name == chosen else ""}>{text(name)}</option>' for name in names
    )
