"""Where the measures come from."""

from __future__ import annotations

__all__ = ["REFERENCES"]

REFERENCES = (
    "SSIM: Wang, Bovik, Sheikh and Simoncelli, Image quality assessment: from error visibility to structural "
    "similarity, IEEE Transactions on Image Processing 13(4), 2004.",
    "MS-SSIM: Wang, Simoncelli and Bovik, Multi-scale structural similarity for image quality assessment, Asilomar "
    "Conference on Signals, Systems and Computers, 2003.",
    "Signed-rank test: Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1(6), 1945.",
    "Many tests at once: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of "
    "Statistics 6, 1979.",
    "Intervals over patients: Davison and Hinkley, Bootstrap methods and their application, 1997, section 3.8.",
    "Noise power spectra: IEC 62220-1, 2003; ICRU Report 54, 1996; mean frequency: AAPM Report 233, 2019.",
    "Task transfer function: Richard, Husarik, Yadava, Murphy and Samei, Towards task-based assessment of CT "
    "performance: system and object MTF across different reconstruction algorithms, Medical Physics 39(7), 2012.",
    "Contrast recovery: NEMA NU 2, 2018; contrast-to-noise ratio: American College of Radiology, CT quality control, "
    "2012.",
    "Model observers: Myers and Barrett, JOSA A 4, 1987; Barrett and Myers, Foundations of image science, 2004, "
    "chapters 13 and 14. Channels: Gallas and Barrett, JOSA A 20(9), 2003; Abbey and Barrett, JOSA A 18(3), 2001.",
    "Area under the ROC curve: DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988.",
    "Agreement by frequency: Saxton and Baumeister, Journal of Microscopy 127(2), 1982; half-bit curve: van Heel and "
    "Schatz, Fourier shell correlation threshold criteria, Journal of Structural Biology 151(3), 2005.",
    "What was removed: Buades, Coll and Morel, A review of image denoising algorithms, with a new one, SIAM Multiscale "
    "Modeling and Simulation 4(2), 2005.",
    "Baselines: Tomasi and Manduchi, ICCV 1998 (bilateral); Chang, Yu and Vetterli, IEEE Transactions on Image "
    "Processing 9(9), 2000 (wavelet); Chambolle, Journal of Mathematical Imaging and Vision 20, 2004 (tv); Buades, "
    "Coll and Morel, CVPR 2005 (nlm); Dabov, Foi, Katkovnik and Egiazarian, IEEE Transactions on Image Processing "
    "16(8), 2007 (bm3d).",
)
