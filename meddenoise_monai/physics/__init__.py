"""How a denoiser changes noise and sharpness, as medical physics measures it: NPS, MTF, CNR, and what was removed.

Fidelity to a reference (`metrics`) says little of these: a denoiser can raise the PSNR and leave noise as coarse
blotches, blur faint edges more than strong ones, or take structure out with the noise. Frequencies are in cycles a
pixel, spectra in value² pixel², values in the images' units. All arithmetic is in float64.
"""

from .contrast import contrast_recovery, contrast_to_noise
from .noise_power import NoisePower, noise_power
from .residuals import StructureInResidual, autocorrelation, structure_in_residual
from .transfer import TransferFunction, circular_edge_mtf, slanted_edge_mtf

__all__ = [
    "NoisePower",
    "StructureInResidual",
    "TransferFunction",
    "autocorrelation",
    "circular_edge_mtf",
    "contrast_recovery",
    "contrast_to_noise",
    "noise_power",
    "slanted_edge_mtf",
    "structure_in_residual",
]
