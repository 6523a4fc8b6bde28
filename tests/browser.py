"""A real headless browser, for the tests of the page and for the pictures of docs/."""

import itertools
import shutil

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
FLAGS += ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage")


def start(*flags):
    """Chromium with these flags as well; whoever starts it quits it."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(DRIVER))


def draw(page, points):
    """Draw on the page's canvas with the mouse; the points are pixels from its middle."""
    canvas = page.find_element(By.ID, "drawing")
    moves = ActionChains(page, duration=20).move_to_element_with_offset(canvas, *points[0]).click_and_hold()
    for (x, y), (x_next, y_next) in itertools.pairwise(points):
        moves.move_by_offset(x_next - x, y_next - y)
    moves.release().perform()
