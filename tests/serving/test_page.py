"""The page in a real headless browser: draw, read the answer."""

import itertools
import shutil
import time

import mlflow
import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
FLAGS += ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver here (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}", "--window-size=1000,800"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, service):
    browser.get(service.address)
    wait_for(lambda: "version" in text(browser, "version"))
    return browser


def text(page, name):
    return page.find_element(By.ID, name).text


def wait_for(condition):
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("not true within 10 s")


def draw(page, points):
    canvas = page.find_element(By.ID, "drawing")
    moves = ActionChains(page, duration=20).move_to_element_with_offset(canvas, *points[0]).click_and_hold()
    for (x, y), (x_next, y_next) in itertools.pairwise(points):
        moves.move_by_offset(x_next - x, y_next - y)
    moves.release().perform()


def shares(page):
    rows = page.find_elements(By.CSS_SELECTOR, "#bars li")
    return [float(row.find_element(By.CLASS_NAME, "share").text.removesuffix(" %") or "nan") for row in rows]


SEVEN = [(-70, -90), (70, -90), (0, 0), (-30, 100)]


def test_a_drawn_digit_is_answered_with_ten_bars_the_version_and_what_the_model_saw(page):
    draw(page, SEVEN)
    wait_for(lambda: text(page, "digit"))
    time.sleep(0.5)  # the answer to the last stroke
    values = shares(page)
    assert sum(values) == pytest.approx(100, abs=1)
    assert text(page, "digit") == str(int(np.argmax(values)))
    assert text(page, "sure") == f"{max(values):.1f} % sure"
    assert text(page, "version") == "mnist-mlp version 1"
    seen = page.find_element(By.ID, "seen")
    assert seen.is_displayed()
    assert page.execute_script("return arguments[0].naturalWidth", seen) == 28


def test_clear_takes_the_answer_away(page):
    draw(page, SEVEN)
    wait_for(lambda: text(page, "digit"))
    page.find_element(By.ID, "clear").click()
    time.sleep(0.3)
    assert text(page, "digit") == ""
    assert all(np.isnan(shares(page)))


def test_it_can_be_drawn_by_keyboard_alone(page):
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    active = page.switch_to.active_element
    assert active.get_attribute("id") == "drawing"
    active.send_keys(*[Keys.ARROW_DOWN] * 15)
    wait_for(lambda: text(page, "digit"))
    assert sum(shares(page)) == pytest.approx(100, abs=1)
    active.send_keys(Keys.DELETE)
    assert text(page, "digit") == ""


def test_an_image_file_is_answered_and_a_wrong_one_told(page, tmp_path):
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 13:16] = 255
    Image.fromarray(pixels).save(tmp_path / "one.png")
    page.find_element(By.ID, "file").send_keys(str(tmp_path / "one.png"))
    wait_for(lambda: text(page, "digit"))
    (tmp_path / "no.png").write_bytes(b"no image")
    page.find_element(By.ID, "file").send_keys(str(tmp_path / "no.png"))
    wait_for(lambda: "neither PNG nor JPEG" in text(page, "trouble"))


def test_it_names_the_version_that_answers_after_the_champion_has_moved(page, model_store):
    client = mlflow.MlflowClient(model_store, model_store)
    client.set_registered_model_alias("mnist-mlp", "champion", "2")
    try:
        time.sleep(0.5)
        wait_for(lambda: draw(page, SEVEN) or text(page, "version") == "mnist-mlp version 2")
    finally:
        client.set_registered_model_alias("mnist-mlp", "champion", "1")
    wait_for(lambda: draw(page, SEVEN) or text(page, "version") == "mnist-mlp version 1")


def test_it_asks_nothing_of_any_other_host_and_logs_no_error(page, service):
    draw(page, SEVEN)
    wait_for(lambda: text(page, "digit"))
    names = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert names
    assert all(name.startswith((service.address, "data:", "blob:")) for name in names)
    severe = [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert [message for message in severe if "favicon" not in message and "400" not in message] == []


@pytest.mark.parametrize(("width", "height"), [(360, 740), (1000, 800)])
def test_nothing_is_wider_than_a_phone_or_a_desktop(page, width, height):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
