"""MONAI's client for federated learning, which NVFlare drives, trains the bundle at several sites."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject

from meddenoise_monai import ResidualDenoisingAutoencoder
from tests.bundle.conftest import ROOT, TINY_NETWORK
from tests.samples import write_patients

ROUNDS, STEPS = 2, 4


@pytest.mark.e2e
@pytest.mark.filterwarnings("ignore:executing the bundle config under")  # it says what a server could do
def test_two_sites_train_one_network(tiny: dict[str, Any], mlflow_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ResidualDenoisingAutoencoder(widths=TINY_NETWORK["widths"], blocks=1)
    torch.save(network.state_dict(), tmp_path / "initial.pt")
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    sites = []
    for number in range(2):
        folder = tmp_path / f"site{number}"
        # All sites share the database here, so that it is made once.
        options = {**tiny, "dataset_dir": str(write_patients(folder / "data", count=8 + number)),
                   "ckpt_dir": str(folder / "models"), "output_dir": str(folder),
                   "tracking_uri": f"sqlite:///{mlflow_folder}/mlflow.db",
                   "max_epochs": 1, "steps_per_epoch": STEPS, "baselines": ["gaussian"]}  # fmt: skip
        site = MonaiAlgo(
            bundle_root=str(ROOT / "bundle"), local_epochs=1, send_weight_diff=False, train_kwargs=dict(options),
            eval_kwargs={**options, "weights": str(tmp_path / "initial.pt")},
        )  # fmt: skip
        site.initialize({ExtraItems.CLIENT_NAME: f"site{number}"})
        sites.append(site)

    metrics = [site.evaluate(ExchangeObject(weights=copy.deepcopy(weights))).metrics for site in sites]
    before = metrics[0]["val_ssim"]
    for _ in range(ROUNDS):
        given = weights
        answers = []
        for site in sites:
            site.train(ExchangeObject(weights=copy.deepcopy(given)))
            answer = site.get_weights()
            assert answer.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] == STEPS
            answers.append(answer.weights)
        assert answers[0].keys() == given.keys()
        weights = {name: sum(torch.as_tensor(one[name]) for one in answers) / len(answers) for name in given}
        assert any(not torch.equal(answers[0][name], answers[1][name]) for name in given)  # each saw its own images
        assert any(not torch.equal(weights[name], given[name]) for name in given)
    metrics = [site.evaluate(ExchangeObject(weights=copy.deepcopy(weights))).metrics for site in sites]
    assert all(found["val_ssim"] > before for found in metrics)
    for site in sites:
        site.finalize()

    client = MlflowClient(tracking_uri=f"sqlite:///{mlflow_folder}/mlflow.db")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert {run.info.status for run in runs} == {"FINISHED"}
    trained = {run.info.run_id: client.get_metric_history(run.info.run_id, "train/loss") for run in runs}
    # One run for each site, whose rounds stand one after the other, and which was open again in the second.
    assert [[value.step for value in values] for values in trained.values() if values] == [[1, 2], [1, 2]]
    ended = {run.info.run_id: run.info.end_time for run in runs}
    assert all(value.timestamp <= ended[name] for name, values in trained.items() for value in values)
