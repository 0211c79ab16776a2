"""Put weights into MLflow's model registry, ready for `mlflow models serve` (see docs/mlflow.md).

The same weights of the same version of the package are registered once; the alias `champion` points at them.

    python scripts/register_model.py [--weights FILE] [--tracking_uri URI] [--name meddenoise]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

STORE = Path(__file__).resolve().parent.parent / "bundle" / "eval"


def register_model(*, weights: str | None = None, tracking_uri: str | None = None, name: str = "meddenoise") -> None:
    """Register weights and say how to use them.

    usage: python scripts/register_model.py [flags]

    flags:
      --weights FILE        a model.pt of the default network; by default the released ones. A model_correlated.pt
                            beside it goes along
      --tracking_uri URI    of the store; the environment variable MLFLOW_TRACKING_URI beats it. By default
                            bundle/eval/mlflow.db
      --name NAME           of the registered model; meddenoise by default
    """
    from meddenoise_monai.command_line import say
    from meddenoise_monai.tracking.registry import register_weights

    done = register_weights(weights, name, tracking_uri, STORE)
    state = "is version" if done.created else "were there already: nothing new is made of"
    say(f"the weights {done.weights} {state} {done.version} of {done.name}, {done.alias}")
    say("serve it:  make serve, or")
    say(f"           MLFLOW_TRACKING_URI={done.tracking_uri} \\\n           "
        f"mlflow models serve -m {done.model_uri} --env-manager local --host 127.0.0.1 --port 5001")  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Do what the words ask for; the exit code is that of the command line."""
    from meddenoise_monai.command_line import execute_alone

    return execute_alone(register_model, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
