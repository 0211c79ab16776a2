"""How well a known lesion can be seen: the channelised Hotelling observer, signals to insert, and lesion contrast.

SSIM and PSNR say how like an image is to another one; a denoiser may raise both and wipe out what a reader looks for.
Here the task itself is scored: a lesion of known shape and place is or is not there (signal known exactly), and a
linear observer, which sees the image through a few channels, has to tell which (Myers and Barrett, JOSA A 4, 1987;
Barrett and Myers, *Foundations of image science*, 2004, chapters 13 and 14).

Whole path: make pairs with `phantoms.disc` or `microcalcifications`, denoise both, and give them to
`evaluate_observer`, with channels from `laguerre_gauss` or `difference_of_gaussians`. Two methods are compared by
`compare_methods`, on the `held_out_scores` of each. `hotelling_dprime` is what theory says of noise whose spectrum is
known. Positions are in pixels and count from the middle of the first pixel; images are on the [0, 1] scale; all
arithmetic is in float64.
"""

from .channels import channel_outputs, difference_of_gaussians, laguerre_gauss
from .folds import evaluate_observer, group_folds, held_out_scores
from .hotelling import HotellingObserver, channel_covariance, hotelling_dprime, train_observer
from .merit import (
    Comparison,
    Detectability,
    Scores,
    auc,
    compare_methods,
    delong_interval,
    delong_variance,
    describe_scores,
    dprime,
)
from .signals import lesion_contrast, microcalcifications

__all__ = [
    "Comparison",
    "Detectability",
    "HotellingObserver",
    "Scores",
    "auc",
    "channel_covariance",
    "channel_outputs",
    "compare_methods",
    "delong_interval",
    "delong_variance",
    "describe_scores",
    "difference_of_gaussians",
    "dprime",
    "evaluate_observer",
    "group_folds",
    "held_out_scores",
    "hotelling_dprime",
    "laguerre_gauss",
    "lesion_contrast",
    "microcalcifications",
    "train_observer",
]
