"""The report as one HTML file that needs no network and can be printed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from .answer import Answer, Point, answer
from .drawing import Drawn
from .findings import Content
from .limits import limits
from .markup import figure, items, panel, paragraph, table, text
from .naming import counted
from .panels import Panel
from .protocol import command, data_sentences, fingerprints, protocol_sections, question, title
from .references import REFERENCES
from .tables import behind_tables, make_tables

__all__ = ["make_page"]

# What a reader of images wants to know first. Figures stand before the tables they show.
_TOPICS = {
    "Where it is behind": (
        "“Worse” is a difference that is shown. “Untested” values were measured once, without an interval of the "
        "difference. The rest is behind on average, by no more than this comparison leaves uncertain."
    ),
    "Lesions that the data sets mark": "Does a lesion that is known to be there keep its contrast?",
    "Lesions put into the images": "What becomes of a faint round lesion that is put into the image before the noise?",
    "How well a model observer finds lesions": "Can a calculated observer still tell where a lesion is?",
    "How like the clean image": "How near is the result to the image without noise?",
    "What was removed, what was invented": "Is what was removed noise alone, and is what is there now real?",
    "Bias and variance": "Is the error lost detail, or noise that is left?",
    "Noise power": "Is the noise that is left fine or blotchy?",
    "Noise in a uniform field": "",
    "Contrast and sharpness of a phantom": "How sharp and how strong is an edge of known contrast?",
    "Stated uncertainty": "Where a result states how sure it is, is that so?",
    "The methods": "",
}
_NO_PICTURES = "This copy of the report was made without pictures of the data."
_NONE_KEPT = "No pictures were kept in this comparison."


def make_page(results: Content, figures: Sequence[Drawn], panels: Sequence[Panel] | None) -> str:
    """The whole page; `panels` None leaves the pictures of the data out, and says so.

    With pictures the page holds windows of the data's images and has to be handled as the data is.
    """
    ours = results["conditions"][0]["ours"]
    sections = [
        ("Question", "\n".join(paragraph(sentence) for sentence in question(results))),
        ("Data", items(data_sentences(results))),
        ("Protocol", "\n".join(f"<h3>{name}</h3>\n{items(said)}" for name, said in protocol_sections(results))),
        ("Results", _results(results, figures, ours)),
        ("Images", _images(panels, ours)),
        ("What was not shown", items(limits(results))),
        ("How to repeat it", _repeat(results)),
        ("References", items(REFERENCES)),
    ]
    places = [(f"part-{number}", name, body) for number, (name, body) in enumerate(sections, 1)]
    contents = "\n".join(f'<li><a href="#{place}">{name}</a></li>' for place, name, _ in places)
    body = "\n".join(
        f'<section aria-labelledby="{place}">\n<h2 id="{place}">{name}</h2>\n{inner}\n</section>'
        for place, name, inner in places
    )
    style, script = (files(__package__).joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title(results))}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{text(title(results))}</h1>
</header>
<main>
{_answer(answer(results), ours)}
<p class="under">{text(results["protocol"]["program"])}. {_kinds(results)}</p>
<nav aria-label="Contents"><ol>
{contents}
</ol></nav>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def _digest(content: str) -> str:
    """What a Content-Security-Policy allows this one script or style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _answer(found: Answer, ours: str) -> str:
    caveat = text(f" {found.caveat}") if found.caveat else ""
    parts = [f'<div class="answer">\n<p><strong>{text(found.headline)}</strong>{caveat}</p>']
    parts += [f"<p><b>{text(title)}:</b></p>\n{_listed(points)}" for title, points in found.worse]
    if found.worse:
        parts.append(paragraph("Every place is in the tables of “Where it is behind”."))
    parts.append("</div>")
    if found.better:
        parts.append('<p class="more"><strong>Better</strong>, and shown to be:</p>\n' + _listed(found.better))
    else:
        parts.append(paragraph(f"By no measure is {ours} shown to be better than another method.", kind="more"))
    if found.undecided:
        said = "<strong>No difference shown</strong>, which is not “equal”: this comparison cannot tell."
        parts.append(f'<p class="more">{said}</p>\n{_listed(found.undecided)}')
    return "\n".join(parts)


def _listed(points: Sequence[Point]) -> str:
    return "<ul>\n" + "\n".join(f"<li><em>{text(p.measure)}</em>: {text(p.words)}.</li>" for p in points) + "\n</ul>"


def _kinds(results: Content) -> str:
    images = sum(entry["images"] for entry in results["protocol"]["data"].values())
    return f"{counted(images, 'image')}, {len(results['methods'])} methods, noisy input included."


def _results(results: Content, figures: Sequence[Drawn], ours: str) -> str:
    tables = [*behind_tables(results), *make_tables(results)]
    counted_figures = counted_tables = 0
    parts = []
    for topic, asked in _TOPICS.items():
        shown = [drawn for drawn in figures if drawn.topic == topic]
        written = [content for content in tables if content.topic == topic]
        if not shown and not written:
            continue
        parts.append(f"<h3>{text(topic)}</h3>")
        if asked:
            parts.append(paragraph(asked, kind="asked"))
        for drawn in shown:
            counted_figures += 1
            parts.append(figure(drawn, counted_figures))
        for content in written:
            counted_tables += 1
            parts.append(table(content, counted_tables, ours))
    return "\n".join(parts)


def _images(panels: Sequence[Panel] | None, ours: str) -> str:
    if panels is None:
        return paragraph(_NO_PICTURES)
    if not panels:
        return paragraph(_NONE_KEPT)
    about = paragraph(
        "Windows of the data’s own images: handle this file as the data itself. Drag across an image, or move the "
        "slider below it with the arrow keys, to see more of the left or the right picture. The residual is what the "
        "right one has more than the left one: grey where they agree. Of a good denoiser, result less noisy shows "
        "noise alone, and result less clean shows nothing."
    )
    return "\n".join([about, *(panel(content, number, ours) for number, content in enumerate(panels, 1))])


def _repeat(results: Content) -> str:
    known = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in fingerprints(results))
    return (
        paragraph(
            "DATA is the data set, DIR a folder for the results, FILE the weights of a network with the fingerprint "
            "below (dae: the released weights, or --model FILE). The same data, weights and versions on the same kind "
            "of machine give the same numbers."
        )
        + f"\n<pre><code>{text(command(results))}</code></pre>\n"
        + paragraph("Fingerprints are digests of the content; they name neither files nor patients.")
        + f"\n<dl>{known}</dl>"
    )
