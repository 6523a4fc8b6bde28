"""The page in a real headless browser: draw, open an image or fill in a row, read the answer."""

import time

import httpx
import mlflow
import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from pipeline.data_spec import MNIST, DataSpec
from pipeline.pixels import as_pixels
from tests.browser import CHROMIUM, DRIVER, draw, start
from tests.conftest import DELIVERED_WITHIN_S, Service, ready_store
from tests.faults import wait_until as wait_for
from tests.small_models import FLOWERS, register

ORIENTATION = 0x0112  # EXIF


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver here (apt-get install chromium chromium-driver)")
    driver = start(f"--user-data-dir={tmp_path_factory.mktemp('browser')}", "--window-size=1000,800")
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, service):
    return opened(browser, service.address)


def opened(browser, address):
    browser.get_log("browser")  # what was logged until now is not this page's
    browser.get(address)
    wait_for(lambda: "version" in text(browser, "version"))
    return browser


# More classes than bars, one of them with a name that is no text but markup.
CLASSES = ("<b>bold</b>", *(f"class {number}" for number in range(24)))
PHOTOS, TABLE, DRAWINGS = "1", "2", "3"


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """A service whose model has a version of each kind; its client of the registry moves the alias."""
    folder = tmp_path_factory.mktemp("things")
    uri = ready_store(folder)
    client = register(uri, "things", [DataSpec("image", (3, 24, 36), CLASSES), FLOWERS, MNIST], folder)
    running = Service(uri, folder, "--model", "things")
    running.uri = uri

    def serve(version):
        client.set_registered_model_alias("things", "champion", version)
        ready = f"{running.address}/ready"
        wait_for(lambda: httpx.get(ready, timeout=DELIVERED_WITHIN_S).json()["version"] == version)

    running.serve = serve
    yield running
    assert running.stop() == 0


@pytest.fixture
def thing(browser, things):
    """The page of any version."""

    def page_of(version):
        things.serve(version)
        return opened(browser, things.address)

    return page_of


def names(page):
    return [each.text for each in page.find_elements(By.CSS_SELECTOR, "#bars .name")]


def shown(page):
    """Which of the ways to ask are there."""
    ids = ("drawing", "clear", "row", "shown")
    return [each for each in ids if page.find_element(By.ID, each).is_displayed()]


def photo(folder):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)).save(folder / "photo.png")
    return str(folder / "photo.png")


def text(page, name):
    return page.find_element(By.ID, name).text


def wait_for_answer(page):
    """Until what is drawn has its answer: every stroke asks, and each answer fills in the bars anew."""
    wait_for(lambda: text(page, "class") and not page.execute_script("return asking || changed"))


def pixels_of(page, image):
    """How wide and high it is, once the browser has read it."""
    wait_for(lambda: page.execute_script("return arguments[0].complete", image))
    return page.execute_script("return [arguments[0].naturalWidth, arguments[0].naturalHeight]", image)


def shares(page):
    rows = page.find_elements(By.CSS_SELECTOR, "#bars li")
    return [float(row.find_element(By.CLASS_NAME, "share").text.removesuffix(" %") or "nan") for row in rows]


SEVEN = [(-70, -90), (70, -90), (0, 0), (-30, 100)]


def test_a_drawn_digit_is_answered_with_ten_bars_the_version_and_what_the_model_saw(page):
    draw(page, SEVEN)
    wait_for_answer(page)
    values = shares(page)
    assert sum(values) == pytest.approx(100, abs=1)
    assert text(page, "class") == str(int(np.argmax(values)))
    assert text(page, "sure") == f"{max(values):.1f} % sure"
    assert text(page, "version") == "mnist-mlp version 1"
    seen = page.find_element(By.ID, "seen")
    assert seen.is_displayed()
    assert pixels_of(page, seen) == [28, 28]


def test_clear_takes_the_answer_away(page):
    draw(page, SEVEN)
    wait_for(lambda: text(page, "class"))
    page.find_element(By.ID, "clear").click()
    time.sleep(0.3)
    assert text(page, "class") == ""
    assert all(np.isnan(shares(page)))


def test_it_can_be_drawn_by_keyboard_alone(page):
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    active = page.switch_to.active_element
    assert active.get_attribute("id") == "drawing"
    active.send_keys(*[Keys.ARROW_DOWN] * 15)
    wait_for_answer(page)
    assert sum(shares(page)) == pytest.approx(100, abs=1)
    active.send_keys(Keys.DELETE)
    assert text(page, "class") == ""


def test_an_image_file_is_answered_and_a_wrong_one_told(page, tmp_path):
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 13:16] = 255
    Image.fromarray(pixels).save(tmp_path / "one.png")
    page.find_element(By.ID, "file").send_keys(str(tmp_path / "one.png"))
    wait_for(lambda: text(page, "class"))
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
    wait_for(lambda: text(page, "class"))
    names = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert names
    assert all(name.startswith((service.address, "data:", "blob:")) for name in names)
    severe = [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert [message for message in severe if "favicon" not in message and "400" not in message] == []


def test_an_image_is_opened_where_nothing_can_be_drawn_and_the_best_ten_of_many_classes_are_shown(thing, tmp_path):
    page = thing(PHOTOS)
    canvas = page.find_element(By.ID, "drawing")
    assert (shown(page), names(page)) == (["drawing", "clear", "shown"], [])
    assert canvas.get_attribute("tabindex") is None
    draw(page, SEVEN)
    page.find_element(By.ID, "file").send_keys(photo(tmp_path))
    wait_for(lambda: text(page, "class"))
    values = shares(page)
    assert (len(values), values) == (10, sorted(values, reverse=True))
    assert names(page)[0] == text(page, "class") in CLASSES
    seen = page.find_element(By.ID, "seen")
    assert pixels_of(page, seen) == [36, 24]
    assert seen.get_attribute("alt") == "The 24 by 36 pixels that the model saw"
    page.find_element(By.ID, "clear").click()
    assert (text(page, "class"), names(page)) == ("", [])
    assert page.switch_to.active_element.get_attribute("id") == "file"


@pytest.mark.parametrize("sides", [(100, 100), (1500, 3000)])
def test_a_photograph_that_is_dropped_gets_the_answer_of_its_pixels_as_training_decodes_them(
    thing, things, tmp_path, sides
):
    page, path = thing(PHOTOS), tmp_path / "dropped.jpg"
    noise = np.random.default_rng(1).integers(0, 256, (*(side // 50 for side in sides), 3), np.uint8)
    turned = Image.Exif()
    turned[ORIENTATION] = 6  # a quarter clockwise
    Image.fromarray(noise).resize(sides).save(path, exif=turned)
    with Image.open(path) as image:
        pixels = as_pixels(image, (24, 36), 3)
    mlflow.set_tracking_uri(things.uri)
    expected = mlflow.pyfunc.load_model(f"models:/things/{PHOTOS}").predict(pixels[None].astype(np.float32))[0]
    mlflow.set_tracking_uri(None)
    page.execute_script(
        "window.probe = document.createElement('input'); probe.type = 'file'; probe.id = 'probe'; "
        "document.body.append(probe)"
    )
    page.find_element(By.ID, "probe").send_keys(str(path))
    page.execute_script(
        "const dataTransfer = new DataTransfer(); dataTransfer.items.add(probe.files[0]); "
        "document.getElementById('drawing').dispatchEvent(new DragEvent('drop', {dataTransfer, bubbles: true}))"
    )
    wait_for(lambda: text(page, "class"))
    assert text(page, "class") == CLASSES[int(expected.argmax())]
    assert text(page, "sure") == f"{100 * expected.max():.1f} % sure"


def test_a_class_is_shown_by_its_very_name(thing, tmp_path):
    page = thing(PHOTOS)
    page.execute_script(
        "tell(arguments[0])",
        {
            "predictions": [{"class": CLASSES[0], "confidence": 1, "probabilities": [1] + [0] * 24}],
            "classes": CLASSES,
            "model": "things",
            "version": PHOTOS,
        },
    )
    assert (text(page, "class"), names(page)[0]) == (CLASSES[0], CLASSES[0])


def test_a_row_is_filled_in_by_the_names_of_its_features_with_the_keyboard_alone(thing):
    page = thing(TABLE)
    assert shown(page) == ["row"]
    labels = page.find_elements(By.CSS_SELECTOR, "#fields label")
    assert [label.text for label in labels] == list(FLOWERS.features)
    assert names(page) == list(FLOWERS.classes)
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    for value in ("1.5", "-2"):
        page.switch_to.active_element.send_keys(value, Keys.TAB)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    time.sleep(0.3)
    assert text(page, "class") == ""  # the browser asks for the third
    page.switch_to.active_element.send_keys("3e1", Keys.ENTER)
    wait_for(lambda: text(page, "class"))
    assert text(page, "class") in FLOWERS.classes
    assert sum(shares(page)) == pytest.approx(100, abs=0.2)
    page.find_element(By.CSS_SELECTOR, "#row [type=reset]").click()
    assert text(page, "class") == ""
    assert page.switch_to.active_element.get_attribute("name") == FLOWERS.features[0]


def test_a_page_that_is_open_follows_the_model_to_another_shape(thing, things, tmp_path):
    page = thing(DRAWINGS)
    assert shown(page) == ["drawing", "clear", "shown"]
    draw(page, SEVEN)
    wait_for(lambda: text(page, "class"))
    things.serve(PHOTOS)
    draw(page, SEVEN)
    wait_for(lambda: text(page, "version") == f"things version {PHOTOS}")
    wait_for(lambda: "ask again" in text(page, "trouble"))
    assert page.find_element(By.ID, "drawing").get_attribute("tabindex") is None
    page.find_element(By.ID, "file").send_keys(photo(tmp_path))
    wait_for(lambda: text(page, "class") in CLASSES)
    things.serve(TABLE)
    page.find_element(By.ID, "file").send_keys(photo(tmp_path))
    wait_for(lambda: shown(page) == ["row"])
    wait_for(lambda: "ask again" in text(page, "trouble"))
    assert names(page) == list(FLOWERS.classes)


@pytest.mark.parametrize("version", [PHOTOS, TABLE, DRAWINGS])
@pytest.mark.parametrize(("width", "height"), [(360, 740), (1000, 800)])
def test_with_no_kind_of_model_is_the_page_wider_than_a_phone_or_a_desktop(thing, version, width, height):
    page = thing(version)
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_a_service_with_a_token_is_asked_with_it(browser, things, tmp_path):
    things.serve(TABLE)
    running = Service(things.uri, tmp_path, "--model", "things", PIPELINE_TOKEN="t0ken")
    try:
        browser.get(running.address)
        wait_for(lambda: browser.find_element(By.ID, "token").is_displayed())
        assert shown(browser) == []
        browser.find_element(By.ID, "token").send_keys("t0ken", Keys.TAB)
        wait_for(lambda: shown(browser) == ["row"])
    finally:
        running.stop()
