"""MLflow's UI as a person sees it, in a headless Chromium: two trainings, an evaluation, the registered model.

With MEDDENOISE_SCREENSHOTS=DIR the tests leave the pictures of docs/mlflow.md there:

    MEDDENOISE_SCREENSHOTS=docs/figures python -m pytest tests/e2e/test_mlflow_ui.py
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from meddenoise_monai import __version__
from tests.debian import need
from tests.servers import free_port, running, surroundings, wait_for

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "bundle" / "configs"
SHOWN = "workflowType=machine_learning"  # else MLflow 3 shows its workspace for language models
SECONDS = 60
SMALL = {
    "baselines": ["median", "gaussian"], "validation_images": 2, "validation_window": 128, "batch_size": 8,
    "steps_per_epoch": 10, "warmup_steps": 2, "learning_rate": 0.01, "average_decay": 0.8, "device": "cpu",
    "network_def": {
        "_target_": "meddenoise_monai.networks.ResidualDenoisingAutoencoder", "widths": [8, 16], "blocks": 1
    },
}  # fmt: skip


@dataclass(frozen=True)
class Store:
    """A store with its UI: where that is, and what is in it."""

    address: str
    trainings: list[Any]
    evaluation: Any
    weights: str


def fill(folder: Path) -> tuple[list[Any], Any, str]:
    """Two tiny trainings on the sample images, the evaluation of the released weights, their registration."""
    from mlflow import MlflowClient
    from monai.bundle import ConfigWorkflow

    from meddenoise_monai.inference import released_weights
    from meddenoise_monai.tracking.registry import register_weights

    train, evaluate = str(CONFIGS / "train.json"), str(CONFIGS / "evaluate.json")
    places = {"output_dir": str(folder), "ckpt_dir": str(folder / "models")}
    released = {name: value for name, value in SMALL.items() if name != "network_def"}
    for files, overrides in (
        (train, {**SMALL, "max_epochs": 2}),
        (train, {**SMALL, "max_epochs": 1, "sigma": 50 / 255}),
        ([train, evaluate], {**released, "weights": str(released_weights())}),
    ):
        flow = ConfigWorkflow(files, workflow_type="train", logging_file=False, **places, **overrides)
        flow.initialize()
        flow.run()
    weights = register_weights(folder=folder).weights
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")

    def runs(experiment: str) -> list[Any]:
        found = client.get_experiment_by_name(experiment)
        assert found is not None
        return list(client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"]))

    (evaluation,) = runs("meddenoise evaluation")
    return runs("meddenoise training"), evaluation, weights


@pytest.fixture(scope="module")
def store(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    need("chromium", "chromedriver")
    folder = tmp_path_factory.mktemp("store")
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    port, log = free_port(), folder / "ui.log"
    uri = f"sqlite:///{folder}/mlflow.db"
    words = [sys.executable, ROOT / "scripts" / "open_mlflow.py", "--tracking_uri", uri, "--port", port]
    with pytest.MonkeyPatch.context() as patch, running(words, log, surroundings()):  # which takes half a minute, too
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        patch.setenv("no_proxy", "127.0.0.1,localhost")
        patch.setenv("SE_OFFLINE", "true")  # Selenium is given its driver, and shall look for none
        trainings, evaluation, weights = fill(folder)
        wait_for(f"http://127.0.0.1:{port}/health", log)
        said = re.search(r"experiments: (http://127\.0\.0\.1:\d+)/#/", log.read_text())
        assert said, log.read_text()
        yield Store(said[1], trainings, evaluation, weights)


class Browser:
    """A headless Chromium, driven by Debian's own driver: nothing is downloaded, no other machine is reached."""

    def __init__(self) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for word in (
            "headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "hide-scrollbars",
            "window-size=1280,860", "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ):  # fmt: skip
            options.add_argument(f"--{word}")
        self.driver = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))

    def open(self, address: str) -> None:
        """Another page, loaded anew although only what follows the ``#`` may differ; MLflow's assistant closed."""
        self.driver.get(address.partition("#")[0] + "health")
        self.driver.execute_script(
            "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');"
            "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');"
        )
        self.driver.get(address)

    @property
    def text(self) -> str:
        """What can be read on the page."""
        return str(self.driver.execute_script("return document.body.innerText")).replace("\xa0", " ")

    def until(self, *texts: str) -> str:
        """What can be read once all of these can."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        try:
            WebDriverWait(self.driver, SECONDS).until(lambda _: all(text in self.text for text in texts))
        except TimeoutException:
            missing = [text for text in texts if text not in self.text]
            raise AssertionError(f"not on the page: {missing}\n\nbut:\n{self.text}") from None
        return self.text

    def until_gone(self, text: str) -> None:
        """Wait until this cannot be read any more."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, SECONDS).until(lambda _: text not in self.text, f"still on the page: {text}")

    def element(self, text: str, method: str) -> None:
        """Call a method of the innermost element of that text."""
        self.driver.execute_script(
            "[...document.querySelectorAll('*')].filter(e => e.textContent.trim() == arguments[0]).at(-1)"
            f".{method}()", text
        )  # fmt: skip

    def find(self, script: str) -> Any:
        """What a script returns, once it returns something."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, SECONDS).until(lambda driver: driver.execute_script(script))

    def keep(self, name: str) -> None:
        """The picture of the page, if it is asked for: in 128 colours, which is enough for a page."""
        folder = os.environ.get("MEDDENOISE_SCREENSHOTS")
        if not folder:
            return
        from PIL import Image

        with Image.open(io.BytesIO(self.driver.get_screenshot_as_png())) as picture:
            few = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
        few.save(Path(folder, f"mlflow_{name}.png"), optimize=True)


@pytest.fixture(scope="module")
def browser(store: Store) -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.driver.quit()


def experiment_of(run: Any) -> str:
    return str(run.info.experiment_id)


def get(address: str) -> bytes:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=30) as answer:
        return bytes(answer.read())


def test_runs_are_listed_by_names_that_say_what_they_are(store: Store, browser: Browser) -> None:
    first, second = store.trainings
    page = f"{store.address}/#/experiments/{experiment_of(first)}/runs?{SHOWN}"
    browser.open(page)
    names = [run.info.run_name for run in store.trainings]
    browser.until("2 matching runs", "meddenoise training", *names)  # the count is there before the rows
    for run, start in ((first, "sigma 25/255, epochs 2, seed 0"), (second, "sigma 50/255, epochs 1, seed 0")):
        assert run.info.run_name.startswith(start)
    browser.keep("runs")
    browser.open(f'{page}&searchFilter=params.max_epochs = "1" and metrics."test/dae_psnr" > 5')
    text = browser.until("1 matching run", second.info.run_name)
    assert first.info.run_name not in text


def test_runs_are_compared_by_what_differs(store: Store, browser: Browser) -> None:
    chosen = json.dumps([run.info.run_id for run in store.trainings])
    experiments = json.dumps([experiment_of(store.trainings[0])])
    browser.open(f"{store.address}/#/compare-runs?runs={chosen}&experiments={experiments}&{SHOWN}")
    text = browser.until("Comparing 2 Runs from 1 Experiment", "Run details", "sigma_max")
    for run in store.trainings:
        assert run.info.run_name in text
        assert run.data.params["sigma"] in text
    for name in ("max_epochs", "training_data", "noise", "test/dae_psnr"):
        assert name in text
    assert "gradient_norm" in text
    browser.find("return document.querySelector('[aria-label=\"Parameters - Show diff only\"]')").click()
    browser.until_gone("gradient_norm")
    text = browser.text
    for name in ("max_epochs", "sigma", "sigma_max"):  # which is all that differs
        assert re.search(rf"^{name}\b", text, re.M), text
    browser.element("Run details", "scrollIntoView")
    browser.keep("compare")


def test_methods_are_compared_in_a_table(store: Store, browser: Browser) -> None:
    run = store.evaluation
    assert run.info.run_name.startswith(f"weights {run.data.params['weights'][:8]}, sigma 25/255")
    where = f"experiments/{experiment_of(run)}/runs/{run.info.run_id}/artifacts/comparison.json"
    browser.open(f"{store.address}/#/{where}?{SHOWN}")
    text = browser.until("View as table", "ssim_matlab", "dae")
    assert run.info.run_name in text
    for method in ("noisy", "median", "gaussian", "dae"):
        assert re.search(rf"^{method}$", text, re.M), text
        for metric in ("ssim", "psnr"):
            shown = round(run.data.metrics[f"test/{method}_{metric}"], 4)
            assert f"{shown:g}" in text.split(), f"{method}: {shown:g}"
    # Where the file lies is nobody's business who reads the docs.
    browser.driver.execute_script(
        "for (const e of document.querySelectorAll('*'))"
        " if (e.children.length == 0 && /^Path:|file:/.test(e.innerText)) e.style.visibility = 'hidden'"
    )
    browser.keep("methods")


def test_panels_are_shown_and_opened(store: Store, browser: Browser) -> None:
    from PIL import Image

    run = store.evaluation
    where = f"experiments/{experiment_of(run)}/runs/{run.info.run_id}/model-metrics"
    browser.open(f"{store.address}/#/{where}?{SHOWN}")
    text = browser.until("baselines", "test", "Add section")
    assert run.info.run_name in text
    browser.element("Add section", "scrollIntoView")  # pictures stand at the end, and are loaded when they are seen
    browser.until("panel_1", "panel_2")
    small = "const shown = [...document.images].find(i => i.src.includes('panel_1') && i.naturalWidth > 0);"
    size = browser.find(f"{small} return shown && [shown.naturalWidth, shown.naturalHeight]")
    logged = Path(run.info.artifact_uri.removeprefix("file://"), "images")
    (webp,) = logged.glob("panel_1*.webp")  # a card shows this small one
    with Image.open(webp) as panel:
        assert list(panel.size) == size
    browser.driver.execute_script(f"{small} shown.click()")  # and a click on it the whole
    whole = browser.find(
        "const whole = document.querySelector('.rc-image-preview-img');"
        "return whole && whole.naturalWidth > 0 && [whole.src, whole.naturalWidth, whole.naturalHeight]"
    )
    (png,) = logged.glob("panel_1*.png")
    with Image.open(png) as panel:
        assert list(panel.size) == whole[1:]
    assert get(whole[0]) == png.read_bytes()
    time.sleep(1)  # until it has grown to its size, for the picture
    browser.keep("panels")


def test_a_training_shows_its_curves_and_a_panel_of_each_epoch(store: Store, browser: Browser) -> None:
    run = store.trainings[0]
    where = f"experiments/{experiment_of(run)}/runs/{run.info.run_id}/model-metrics"
    browser.open(f"{store.address}/#/{where}?{SHOWN}")
    text = browser.until("baselines", "validation", "train", "Add section")
    assert run.info.run_name in text
    browser.element("Add section", "scrollIntoView")
    browser.until("panel_1")
    steps = browser.find(
        "return [...document.querySelectorAll('[role=slider]')].map(s => s.getAttribute('aria-valuemax')).at(-1)"
    )
    assert steps == "2"  # before the first epoch, and after each


def test_the_registered_model_says_what_it_is(store: Store, browser: Browser) -> None:
    browser.open(f"{store.address}/#/models/meddenoise?{SHOWN}")
    text = browser.until("Registered Models", "Version 1", "@ champion")
    assert "Not a medical device and not for diagnosis." in text
    assert store.weights in text
    browser.keep("model")
    browser.open(f"{store.address}/#/models/meddenoise/versions/1?{SHOWN}")
    text = browser.until("Inputs (2)", "Outputs (2)", "@ champion")
    for shown in (f"meddenoise_monai {__version__}, weights {store.weights}", "intended_use", "package_version"):
        assert shown in text
    browser.element("Inputs (2)", "click")
    text = browser.until("image", "dicom")
    assert "binary" in text
