"""Which denoiser does how well on which image.

`table` scores methods on cases, for trainings and evaluations. The rest is what `meddenoise compare` stands on:
`sources` and `scenes` (what is judged), `conditions` (under which noise), `methods` (what is compared), `measures`
(what is measured), `tasks` (side by side, kept on disk), `study` (all of it), `summary` (what it says).
"""

from __future__ import annotations

from .table import METRICS, Case, Score, as_columns, as_markdown, evaluate, intervals, summarise, write_scores

__all__ = [
    "METRICS",
    "Case",
    "Score",
    "as_columns",
    "as_markdown",
    "evaluate",
    "intervals",
    "summarise",
    "write_scores",
]
