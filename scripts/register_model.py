"""Put weights into MLflow's model registry, ready for `mlflow models serve` (see docs/mlflow.md).

The same weights of the same version of the package are registered once; the alias `champion` points at them.

    python scripts/register_model.py [--weights FILE] [--tracking_uri URI] [--name meddenoise]
"""

from __future__ import annotations

from pathlib import Path

STORE = Path(__file__).resolve().parent.parent / "bundle" / "eval"


def main(weights: str = "", tracking_uri: str = "", name: str = "meddenoise") -> None:
    """Register weights and say how to use them.

    Parameters
    ----------
    weights
        A ``model.pt`` of the default network; by default the released ones. A ``model_correlated.pt`` beside it goes
        along.
    tracking_uri
        Of the store; the environment variable MLFLOW_TRACKING_URI beats it. By default ``bundle/eval/mlflow.db``.
    name
        Of the registered model.
    """
    from meddenoise_monai.errors import MeddenoiseError
    from meddenoise_monai.tracking.registry import register_weights

    try:
        done = register_weights(weights or None, name, tracking_uri or None, STORE)
    except MeddenoiseError as error:
        raise SystemExit(f"error: {error}") from None
    state = "is version" if done.created else "were there already: nothing new is made of"
    print(f"the weights {done.weights} {state} {done.version} of {done.name}, {done.alias}")
    print("serve it:  make serve, or")
    print(f"           MLFLOW_TRACKING_URI={done.tracking_uri} \\\n           "
          f"mlflow models serve -m {done.model_uri} --env-manager local --host 127.0.0.1 --port 5001")  # fmt: skip


if __name__ == "__main__":
    import fire

    fire.Fire(main)
