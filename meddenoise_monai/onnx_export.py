"""The default network as an ONNX file, which runs without PyTorch and MONAI."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

import torch

from .errors import UsageError
from .inference import load_network
from .whole_files import replace_whole

__all__ = ["LEAST_SIZE", "export_onnx"]

LEAST_SIZE = 16  # pixels; a smaller image cannot be mirrored at its borders, which the network does otherwise
_EXAMPLE = (2, 1, 75, 91)  # no multiples of anything, so that nothing is taken for constant


def export_onnx(weights: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Write weights of the default network as an ONNX file, for batches and images of any size from 16 pixels on.

    Input ``image`` and output ``pred`` are float32, (batch, 1, height, width), on the [0, 1] scale.

    Parameters
    ----------
    weights
        A ``model.pt`` of the 2D default network.
    target
        The file to write; it appears whole or not at all.

    Raises
    ------
    InputError
        If the weights cannot be used.
    UsageError
        If the packages that write ONNX are not installed, or the network is 3D.
    """
    network = load_network(weights).eval()
    if network.tail.weight.ndim != 4:
        raise UsageError(f"{os.fspath(weights)} holds a 3D network", "only 2D networks are exported to ONNX")
    size = {axis: torch.export.Dim(name, min=LEAST_SIZE) for axis, name in ((2, "height"), (3, "width"))}
    shapes = {0: torch.export.Dim("batch"), **size}
    noise = logging.getLogger("torch.onnx")  # it tells of operators of torchvision that nobody asked for
    level = noise.level
    with replace_whole(target) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.export about itself
        noise.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                network, (torch.rand(_EXAMPLE),), input_names=["image"], output_names=["pred"],
                dynamic_shapes=(shapes,), dynamo=True, verbose=False,
            )  # fmt: skip
            temporary.write_bytes(_without_traces(program).SerializeToString(deterministic=True))
        except ImportError as error:
            hint = "python -m pip install onnx onnxscript; in a clone: -c constraints.txt -e '.[onnx]'"
            raise UsageError(f"cannot write ONNX: {error}", hint) from error
        finally:
            noise.setLevel(level)


def _without_traces(program: Any) -> Any:
    """The model without what PyTorch notes on its origin: lines of code, with the paths of this machine."""
    model = program.model_proto
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    return model
