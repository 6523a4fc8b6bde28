"""Takes the pictures of docs/ anew, in a real terminal and a real browser (chromium, chromedriver): in ten minutes.

    MNIST_DIR=... SIGNS_DIR=... BOOK=sqlite:////the/lab/book/is/in.db python -m docs.pictures [bar list page photo book]

What the pictures show is trained and served for them in a folder of its own; `book` opens the store in which the
lab book was trained.
"""

import fcntl
import io
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import mlflow
from rich.console import Console
from rich.text import Text
from selenium import webdriver
from selenium.webdriver.common.by import By

from pipeline.delivery.ui import run_list
from tests.browser import draw, start

ROOT = Path(__file__).parent.parent
WIDTH, HEIGHT = 108, 30  # of the terminal, characters
SETTLED_S = 6  # MLflow's pages load in parts, and nothing in them says that they are whole
# Where the pen goes for a 3, in shares of the canvas from its middle.
THREE = [(-0.16, -0.28), (-0.08, -0.37), (0.04, -0.38), (0.16, -0.3), (0.18, -0.16), (0.1, -0.06), (0, -0.02)]
THREE += [(0.12, 0.04), (0.21, 0.16), (0.18, 0.3), (0.06, 0.37), (-0.08, 0.35), (-0.17, 0.26)]


class Studio:
    """A folder with a store of its own, what is asked there, and a browser."""

    def __init__(self, folder: Path, browser: webdriver.Chrome):
        self.folder, self.browser = folder, browser
        self.store = f"sqlite:///{folder}/mlflow.db"
        self.environ = os.environ | {"MLFLOW_TRACKING_URI": self.store, "PYTHONPATH": str(ROOT)}

    def train(self, *knobs: str) -> None:
        """A run, recorded and registered; its knobs as flags."""
        command = [sys.executable, "-m", "pipeline", "train", *knobs]
        subprocess.run(command, cwd=self.folder, env=self.environ, check=True, stdout=subprocess.DEVNULL)

    @contextmanager
    def server(self, *module: str, ready: str = "/") -> Iterator[str]:
        """A server for as long as the block lasts; gives its address."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command, quiet = [sys.executable, "-m", *module, "--port", str(port)], subprocess.DEVNULL
        process = subprocess.Popen(command, cwd=self.folder, env=self.environ, stdout=quiet, stderr=quiet)
        try:
            wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}{ready}").is_success)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()

    def open(self, address: str, size: tuple[int, int], dark: bool = False) -> None:
        """Show a page in a window whose inside is so large."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.browser.get("about:blank")  # another address after the # alone loads nothing
        self.browser.get(address)

    def open_in_mlflow(self, address: str, size: tuple[int, int]) -> None:
        """Show a page of MLflow's once it is whole."""
        self.open(address, size)
        time.sleep(SETTLED_S)

    def click(self, path: str) -> None:
        """Click on whatever an XPath finds."""
        for element in self.browser.find_elements(By.XPATH, path):
            element.click()

    def take(self, name: str) -> None:
        """Keep what the browser shows as docs/NAME.png, without the panel that MLflow opens unasked."""
        if self.browser.find_elements(By.XPATH, "//*[@placeholder='Ask a question...']"):
            self.click("(//*[text()='MLflow Assistant']/ancestor::*[.//button][1]//button)[last()]")
        time.sleep(1)
        self.browser.save_screenshot(str(ROOT / f"docs/{name}.png"))
        print(f"docs/{name}.png", flush=True)


def bar(studio: Studio) -> None:
    """A terminal in the middle of the third epoch."""
    command = ["python", "-m", "pipeline", "train", "--epochs", "3"]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    environ = studio.environ | {"TERM": "xterm-256color", "COLUMNS": str(WIDTH)}
    process = subprocess.Popen(
        [sys.executable, *command[1:]], cwd=studio.folder, env=environ, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    written = ""
    while not re.search(r"Epoch 3/3.*(?<!\d)2[3-9]\d/469", written, re.DOTALL):
        written += os.read(ours, 1 << 16).decode(errors="replace")
    process.terminate()
    process.wait()
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print("$ " + " ".join(command), highlight=False)
    for line in written.split("\n"):
        shown = line.replace("\x1b[2K", "").rstrip("\r").rpartition("\r")[2]  # what was written over is gone
        console.print(Text.from_ansi(shown), no_wrap=True)
    picture = studio.folder / "bar.svg"
    console.save_svg(str(picture), title="")
    wide, high = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', picture.read_text()).groups())
    studio.open(picture.as_uri(), (1400, round(1400 * high / wide)))
    studio.take("bar")


def list_(studio: Studio) -> None:
    """The list of runs as `make ui` opens it, and two of them side by side."""
    for knobs in ("--seed 1", "--seed 1 --dropout 0", "--seed 1 --hidden_units 256", "--seed 2"):
        studio.train("--epochs", "6", *knobs.split())
    client = mlflow.MlflowClient(tracking_uri=studio.store)
    experiment = client.get_experiment_by_name("mnist-mlp").experiment_id
    runs = [run.info.run_id for run in client.search_runs([experiment], order_by=["start_time"])][:2]
    with studio.server("mlflow", "ui", "--backend-store-uri", studio.store) as address:
        studio.open_in_mlflow(run_list(address, experiment), (1340, 617))
        studio.take("ui")
        chosen = f'runs=["{runs[0]}","{runs[1]}"]&experiments=["{experiment}"]'
        studio.open_in_mlflow(f"{address}/#/compare-runs?{chosen}", (1400, 857))
        studio.click("//button[@role='switch'][@aria-checked='false']")  # show differences only
        details = studio.browser.find_element(By.XPATH, "//*[text()='Run details']")
        studio.browser.execute_script("arguments[0].scrollIntoView()", details)
        time.sleep(1)
        studio.take("compare")


def page(studio: Studio) -> None:
    """The service's page with a drawn digit, wide and on a phone in the dark."""
    studio.train("--epochs", "6")
    with studio.server("pipeline", "serve", ready="/ready") as address:
        for name, size, dark in (("page", (860, 570), False), ("page_phone", (390, 900), True)):
            studio.open(address, size, dark)
            wait_for(lambda: "version" in studio.browser.find_element(By.ID, "version").text)
            side = studio.browser.find_element(By.ID, "drawing").size["width"]
            draw(studio.browser, [(round(x * side), round(y * side)) for x, y in THREE])
            time.sleep(1)
            studio.take(name)


def photo(studio: Studio) -> None:
    """The page of another model: a photograph of a sign for 7."""
    knobs = "--image_size 64 --network cnn --optimizer adam --epochs 10 --model_name signs"
    studio.train("--dataset", "folder", "--data_dir", os.environ["SIGNS_DIR"], *knobs.split())
    photograph = sorted((Path(os.environ["SIGNS_DIR"]) / "7").iterdir())[0]
    with studio.server("pipeline", "serve", "--model", "signs", ready="/ready") as address:
        studio.open(address, (860, 520))
        wait_for(lambda: "version" in studio.browser.find_element(By.ID, "version").text)
        studio.browser.find_element(By.ID, "file").send_keys(str(photograph))
        time.sleep(2)
        studio.take("page_photo")


def book(studio: Studio) -> None:
    """A question's runs under it in MLflow, and the means of its groups as MLflow's own charts draw them."""
    store = os.environ["BOOK"]
    client = mlflow.MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("optimizer").experiment_id
    parent = client.search_runs([experiment], "tags.variant = '(all)'")[0].info.run_id
    with studio.server("mlflow", "ui", "--backend-store-uri", store) as address:
        studio.open_in_mlflow(run_list(address, experiment), (1400, 757))
        studio.click("//*[@role='gridcell']//a/ancestor::*[@role='gridcell']//button")  # show what is nested
        time.sleep(SETTLED_S)
        studio.take("runs")
        studio.open_in_mlflow(f"{address}/#/experiments/{experiment}/runs/{parent}/model-metrics", (1400, 757))
        studio.browser.find_element(By.XPATH, "//input[@placeholder='Search metric charts']").send_keys("mean")
        time.sleep(SETTLED_S)
        studio.take("chart")


def wait_for(condition: Callable[[], bool], within_s: float = 120) -> None:
    """Wait until it is true; what it raises means not yet."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"not true within {within_s} s")


PICTURES = {"bar": bar, "list": list_, "page": page, "photo": photo, "book": book}


def main(names: list[str]) -> None:
    """Take those pictures, or all."""
    with ExitStack() as ends:
        browser = start("--hide-scrollbars")
        ends.callback(browser.quit)
        for name in names or PICTURES:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
            PICTURES[name](Studio(folder, browser))


if __name__ == "__main__":
    main(sys.argv[1:])
