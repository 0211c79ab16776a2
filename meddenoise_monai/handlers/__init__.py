"""Ignite handlers: the tracked run, the comparison with classical baselines, the image panels.

`RunTracker` owns the run; `BaselineComparison` and `ImagePanels` attach to the validation engine and log through it;
`FinalComparison` prints the table at the end. They work on batches of one image, as the bundle's validation gives them.
"""

from .comparison import BaselineComparison, FinalComparison
from .panels import ImagePanels
from .run import RunTracker

__all__ = ["BaselineComparison", "FinalComparison", "ImagePanels", "RunTracker"]
