"""The report in a real browser: the slider, the residual, the chooser, the zoom, print; nothing asked of a network."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from meddenoise_monai.report import write_report
from tests.debian import need
from tests.small_study import OURS, SIDE, small_study

pytest.importorskip("selenium", reason="selenium is not installed (it comes with the dev extra)")

pytestmark = pytest.mark.e2e

DESKTOP, PHONE = (1200, 900), (390, 844)
SHARE = 'return getComputedStyle(arguments[0].querySelector(".over")).clipPath'


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("chromium", "chromedriver")
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, *small_study())
    return folder / "report.html"


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    """A headless Chromium of this machine; selenium is never to fetch one."""
    need("chromium", "chromedriver")
    import shutil

    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    browser.set_script_timeout(60)
    yield browser
    browser.quit()


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def browser(request: pytest.FixtureRequest, started: Any, report: Path) -> Any:
    """The page, freshly opened at a width."""
    width, height = request.param
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": request.param == PHONE}
    started.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    for kind in ("browser", "performance"):
        started.get_log(kind)  # what an earlier test left
    started.get(report.as_uri())
    until(lambda: len(started.find_elements("css selector", ".panel.ready")) == 2)
    return started


def until(condition: Any, seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "the page did not get there"
        time.sleep(0.1)


def part(browser: Any, name: str) -> Any:
    return browser.find_element("css selector", f'.panel [data-part="{name}"]')


def pixels(browser: Any, name: str) -> np.ndarray[Any, Any]:
    """A canvas of the first panel, (H, W)."""
    address = browser.execute_script("return arguments[0].toDataURL()", part(browser, name))
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("L"))


def choose(browser: Any, name: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(part(browser, name)).select_by_value(value)


def visible(browser: Any) -> np.ndarray[Any, Any]:
    """What a reader sees of the first panel's frame, (H, W)."""
    frame = part(browser, "frame")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", frame)
    return np.asarray(Image.open(io.BytesIO(frame.screenshot_as_png)).convert("L"), np.float64)


def roughness(image: np.ndarray[Any, Any]) -> float:
    """How much neighbours differ, away from labels and the bar."""
    return float(np.abs(np.diff(image[40:].astype(np.float64), axis=0)).mean())


def test_slider_moves_by_keys_and_shows_more_of_the_left(browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    panel, slider = browser.find_element("css selector", ".panel"), part(browser, "slider")
    assert browser.execute_script(SHARE, panel) == "inset(0px 0px 0px 50%)"
    half = visible(browser)
    middle = half.shape[1] // 2
    assert roughness(half[:, : middle - 10]) > 1.5 * roughness(half[:, middle + 10 :])  # noisy, denoised
    slider.send_keys(Keys.ARROW_RIGHT * 5)
    assert browser.execute_script(SHARE, panel) == "inset(0px 0px 0px 55%)"
    assert slider.get_attribute("aria-valuetext") == "55 % noisy"
    slider.send_keys(Keys.HOME)
    assert browser.execute_script(SHARE, panel) == "inset(0px 0px 0px 0%)"
    whole = visible(browser)
    assert roughness(whole[:, : middle - 10]) < roughness(half[:, : middle - 10]) / 1.5
    slider.send_keys(Keys.END)
    assert roughness(visible(browser)[:, middle + 10 :]) > 1.5 * roughness(half[:, middle + 10 :])


def test_slider_follows_a_drag_over_the_image(browser: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    frame = part(browser, "frame")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", frame)
    width = frame.size["width"]
    actions = ActionChains(browser).move_to_element_with_offset(frame, -width // 4, 0).click_and_hold()
    actions.move_to_element_with_offset(frame, width // 4, 0).release().perform()
    assert float(part(browser, "slider").get_attribute("value")) == pytest.approx(75, abs=2)


def test_pictures_are_those_that_were_measured(browser: Any) -> None:
    from meddenoise_monai.report.panels import make_panels

    panel = make_panels(small_study()[1], OURS)[0]
    outcome = next(o for o in small_study()[1] if o.measure == "fidelity" and "picture" in o.values[OURS])
    low, high = panel.window
    choose(browser, "before", "clean")
    expected = np.clip((outcome.about["scene"].clean - low) / (high - low), 0, 1) * 255
    assert np.abs(pixels(browser, "left") - expected).max() <= 2


def test_method_and_residual_can_be_chosen(browser: Any) -> None:
    assert part(browser, "right-label").text == OURS
    ours = pixels(browser, "right")
    choose(browser, "after", "gaussian")
    assert part(browser, "right-label").text == "gaussian"
    assert not np.array_equal(ours, pixels(browser, "right"))

    part(browser, "switch").click()
    assert part(browser, "right-label").text == "gaussian − noisy"
    assert "black −75, grey 0, white +75 (1/255 of the range)" in part(browser, "scale").text
    assert part(browser, "residual").is_displayed()
    assert not part(browser, "right").is_displayed()
    removed = pixels(browser, "residual").astype(np.float64)
    # Noise of 25/255 on a scale that ends at 75/255 either side.
    assert removed.mean() == pytest.approx(127.5, abs=4)
    assert removed.std() == pytest.approx(127.5 / 3, rel=0.15)

    choose(browser, "before", "clean")
    assert part(browser, "right-label").text == "gaussian − clean"
    assert "black −25, grey 0, white +25" in part(browser, "scale").text
    choose(browser, "after", "noisy")
    assert pixels(browser, "residual").astype(np.float64).std() > removed.std()
    part(browser, "switch").click()
    assert part(browser, "right").is_displayed()
    assert part(browser, "scale").text == ""


def test_zoom_keeps_the_page_as_wide_as_the_screen(browser: Any) -> None:
    choose(browser, "zoom", "8")
    assert part(browser, "frame").size["width"] == 8 * SIDE
    wide = browser.execute_script("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1]
    choose(browser, "zoom", "fit")
    assert part(browser, "frame").size["width"] <= wide[1]


def test_controls_can_be_reached_by_keys(browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.execute_script("arguments[0].focus()", part(browser, "before"))
    reached = []
    for _ in range(5):
        reached.append(browser.execute_script("return document.activeElement.dataset.part"))
        browser.switch_to.active_element.send_keys(Keys.TAB)
    assert reached == ["before", "after", "switch", "zoom", "slider"]


def test_no_errors_and_nothing_asked_of_a_network(browser: Any, report: Path) -> None:
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert report.as_uri() in asked
    assert {address.partition(":")[0] for address in asked} <= {"file", "data"}
    # The policy holds: what a page of another's data might try is refused.
    refused = """
        const done = arguments[0];
        fetch("http://127.0.0.1:9/").then(() => done("sent"), () => done("refused"));
    """
    assert browser.execute_async_script(refused) == "refused"
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


def test_prints_to_pages_with_panels_side_by_side(browser: Any) -> None:
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 5
    sizes = {tuple(map(float, size)) for size in re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)}
    assert all(size == pytest.approx((595, 842), abs=2) for size in sizes)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        places = [part(browser, name).rect for name in ("left", "right", "residual")]
        shown = [part(browser, name).is_displayed() for name in ("left", "right", "residual", "slider", "switch")]
        captions = [part(browser, f"{name}-caption").text for name in ("left", "right", "residual")]
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert shown == [True, True, True, False, False]
    assert len({place["y"] for place in places}) == 1
    assert places[0]["x"] + places[0]["width"] <= places[1]["x"]
    assert places[1]["x"] + places[1]["width"] <= places[2]["x"]
    assert captions[:2] == ["noisy", OURS]
    assert captions[2].startswith(f"{OURS} − noisy: black −75")


def test_without_scripts_the_pictures_stand_side_by_side(browser: Any) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.refresh()
        images = browser.find_elements("css selector", ".panel .stored img")
        assert len(images) == 8
        assert all(image.is_displayed() for image in images)
        assert not part(browser, "slider").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
