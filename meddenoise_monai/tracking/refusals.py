"""Errors as MLflow's model server answers them. Imports mlflow: to be imported where one is raised."""

from __future__ import annotations

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from ..errors import MeddenoiseError

__all__ = ["Refusal"]


class Refusal(MlflowException):
    """A request that cannot be served: status 400, with the message and the hint of a user's error, and no more.

    Parameters
    ----------
    error
        What is wrong with the request.
    """

    def __init__(self, error: MeddenoiseError) -> None:
        self._text = str(error)
        super().__init__(self._text, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        return self._text

    @message.setter
    def message(self, value: str) -> None:
        """Not taken: MLflow's server would put the request before it, and a request may show a patient's name."""
