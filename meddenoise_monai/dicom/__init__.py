"""DICOM files: read as images, written as derived objects."""

from .reading import DicomImage, read_dicom, refusal, silence
from .writing import (
    TRANSFER_SYNTAXES,
    Derivation,
    check_derivable,
    check_transfer_syntax,
    derive,
    is_derived_here,
    write_dicom,
)

__all__ = [
    "TRANSFER_SYNTAXES",
    "Derivation",
    "DicomImage",
    "check_derivable",
    "check_transfer_syntax",
    "derive",
    "is_derived_here",
    "read_dicom",
    "refusal",
    "silence",
    "write_dicom",
]
