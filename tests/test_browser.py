"""Real JupyterLab in headless Chromium: cells run, sliders move, pictures and texts follow.

Needs Chromium (Debian: `apt install chromium`) and playwright; no download of its own browser.
With `TINYGPT_SCREENSHOTS=folder` the screenshots are kept there.
"""

import html
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

import nbclient
import nbconvert
import nbformat
import pytest

from tinygpt.files import ROOT
from tinygpt.lab import QUIET

from .execute import still

pytestmark = pytest.mark.full

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    *(
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
    ),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing but our own server
]
SETTINGS = {"notebook-extension/tracker": {"windowingMode": "none"}}  # cells outside are drawn, too

# --- JupyterLab and the browser ------------------------------------------------------------------


class NotebookError(AssertionError):
    """A cell, or something that a control called, raised an exception."""


class Lab:
    """A JupyterLab server over a folder, with all its files in temporary places."""

    def __init__(self, folder: Path, home: Path):
        self.folder, self.token = folder, secrets.token_hex(16)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(home)}
        for name in ("CONFIG", "DATA", "RUNTIME"):
            environment[f"JUPYTER_{name}_DIR"] = str(home / name.lower())
        for name in ("SETTINGS", "WORKSPACES"):
            environment[f"JUPYTERLAB_{name}_DIR"] = str(home / name.lower())
        environment |= {"IPYTHONDIR": str(home / "ipython"), "MPLCONFIGDIR": str(home / "mpl")}
        environment["JUPYTER_CONFIG_PATH"] = str(QUIET)  # as `python -m tinygpt lab` has it
        environment["OMP_NUM_THREADS"] = "1"  # small models, and a browser beside them
        for name, values in SETTINGS.items():
            path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
        command += [f"--ServerApp.root_dir={folder}", f"--ServerApp.port={port}"]
        command += [f"--IdentityProvider.token={self.token}"]
        command += ["--LabApp.expose_app_in_browser=True"]
        self.log, self.runtime = home / "server.log", home / "runtime"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:  # another port than the one asked for, if somebody has taken that one meanwhile
                told = json.loads((self.runtime / f"jpserver-{self.process.pid}.json").read_text())
                self.url = f"http://127.0.0.1:{told['port']}"
                urllib.request.urlopen(f"{self.url}/api/status?token={self.token}", timeout=5)
                return
            except (OSError, ValueError):  # not yet
                time.sleep(0.2)
        raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text()[-3000:]}")

    def close(self) -> None:
        """End the server and its kernels: the process group that was made for them."""
        for kind in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, kind)
                self.process.wait(timeout=10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


class Page:
    """A notebook open in the browser."""

    def __init__(self, browser, lab: Lab, path: str, width: int = 1400, height: int = 1500):
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(30_000)
        self.page.goto(f"{lab.url}/lab/tree/{path}?token={lab.token}&reset")
        self.page.wait_for_function(f"() => {_KERNEL}?.status === 'idle'", timeout=90_000)
        self.page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
        # exceptions in cells and in what controls call, whether they are shown somewhere or not
        self.page.evaluate(
            f"""() => {{ window.errors = []; {_KERNEL}.iopubMessage.connect((_, m) => {{
            const c = m.content;
            if (m.header.msg_type === 'error') errors.push(c.ename + ': ' + c.evalue);
            // JupyterLab may ask for widgets before ipywidgets is imported; that is no error
            if (c.name === 'stderr' && c.text.replace(/^No such comm.*$/gm, '').trim())
              errors.push(c.text) }}) }}"""
        )

    def run_all(self, seconds: float = 120) -> None:
        """Run all cells and wait for the end; `NotebookError` if one fails."""
        self.page.evaluate(
            """() => { window.done = false; window.jupyterapp.commands
            .execute('notebook:run-all-cells').then(() => { window.done = true }) }"""
        )
        self.page.wait_for_function("() => window.done", timeout=seconds * 1000)
        self.check()
        assert self.page.evaluate(
            """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
            .every(cell => cell.type !== 'code' || cell.executionCount > 0)"""
        ), "some cells did not run"

    def check(self) -> None:
        """Raise `NotebookError` if anything went wrong so far."""
        self.wait_for(f"() => {_KERNEL}.status === 'idle'")
        if errors := self.page.evaluate("() => window.errors"):
            raise NotebookError("\n".join(errors))

    def wait_for(self, javascript: str, argument=None) -> None:
        self.page.wait_for_function(javascript, arg=argument, timeout=30_000)

    def slider(self, name: str):
        return self.page.locator(".widget-slider").filter(
            has=self.page.locator("label", has_text=name)
        )

    def text(self, selector: str) -> str:
        """The text of the first of these elements, as `shows` and `changes` read it."""
        return self.page.locator(selector).first.inner_text()

    def shows(self, selector: str, words: str) -> str:
        """Wait until an element's text holds some words, and return it."""
        self.wait_for(
            "([s, words]) => document.querySelector(s).innerText.includes(words)", [selector, words]
        )
        return self.text(selector)

    def changes(self, selector: str, before: str) -> str:
        """Wait until an element's text is another, and return it."""
        self.wait_for(
            "([s, old]) => document.querySelector(s).innerText !== old", [selector, before]
        )
        return self.text(selector)


_KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"


def new_notebook(cells: list[str]):
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("served"), tmp_path_factory.mktemp("home"))
    yield lab
    lab.close()


@pytest.fixture
def open_notebook(browser, lab, request, tmp_path):
    """Opens a notebook, given by its cells or its path; a screenshot is kept at the end."""
    pages = []

    def open_it(source: list[str] | Path, width: int = 1400, height: int = 1500) -> Page:
        name = f"{request.node.name.replace('[', '-').rstrip(']')}.ipynb"
        if isinstance(source, Path):
            notebook = nbformat.read(source, as_version=4)
            code = (cell for cell in notebook.cells if cell.cell_type == "code")
            for cell in code:  # JupyterLab would look for the old outputs' widgets, in vain
                cell.outputs, cell.execution_count = [], None
        else:
            notebook = new_notebook(source)
        nbformat.write(notebook, lab.folder / name)
        pages.append(Page(browser, lab, name, width, height))
        return pages[-1]

    yield open_it
    folder = Path(os.environ.get("TINYGPT_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    for page in pages:
        page.page.screenshot(path=folder / f"{request.node.name}.png")
        page.page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
        page.page.close()


# --- the tests -----------------------------------------------------------------------------------

SMALL = """
import torch
from tinygpt import CharTokenizer, ModelConfig, TinyGPT, load_corpus
from tinygpt.widgets import sampling_playground, window_explorer
torch.manual_seed(0)
tokenizer = CharTokenizer("abcdefghijklmnopqrstuvwxyz EMOR:\\n")
model = TinyGPT(ModelConfig(tokenizer.vocab_size, block_size=64, n_layer=1, n_head=2, n_embd=32))
model.tokenizer = tokenizer
for parameter in model.parameters():
    parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
sampling_playground(model)
"""
PICTURE, TEXTS = ".tg:has(.chart)", ".tg:has(.cards)"


def heads(page: Page) -> list[str]:
    return [" ".join(head.split()) for head in page.page.locator(".tg .head b").all_inner_texts()]


def wait_for_head(page: Page, words: str) -> None:
    """Wait until a column of the picture has this head."""
    page.wait_for(
        "words => [...document.querySelectorAll('.tg .head b')]"
        ".some(head => head.innerText.trim() === words)",
        words,
    )


def play(page: Page) -> None:
    """Move the playground's controls by keyboard, mouse and typing; picture and texts follow."""
    page.page.locator(PICTURE).scroll_into_view_if_needed()
    assert "0.8" in heads(page)

    picture, texts = page.text(PICTURE), page.text(TEXTS)
    handle = page.slider("temperature").locator(".noUi-handle")
    handle.focus()
    page.page.keyboard.press("ArrowRight")
    wait_for_head(page, "0.85")
    texts = page.shows(TEXTS, "temperature 0.85")
    picture = page.text(PICTURE)

    bar = page.slider("top-k").locator(".noUi-target").bounding_box()
    box = page.slider("top-k").locator(".noUi-handle").bounding_box()
    mouse, y = page.page.mouse, box["y"] + box["height"] / 2
    mouse.move(box["x"] + box["width"] / 2, y)
    mouse.down()
    mouse.move(bar["x"] + bar["width"] / 2, y, steps=10)
    mouse.up()
    page.wait_for("() => !document.querySelector('.tg.pending')")
    picture, texts = page.changes(PICTURE, picture), page.changes(TEXTS, texts)
    assert int(page.slider("top-k").locator(".widget-readout").inner_text()) > 10

    readout = page.slider("top-p").locator(".widget-readout")
    readout.click()
    page.page.keyboard.press("Control+a")
    page.page.keyboard.type("0.5")
    page.page.keyboard.press("Enter")
    # results of the drag before may still come in: only these words tell
    wait_for_head(page, "0.5")
    page.shows(TEXTS, "top-p 0.5")

    page.slider("character").locator(".noUi-handle").focus()
    for _ in range(3):
        page.page.keyboard.press("ArrowRight")
    page.wait_for("() => document.body.innerText.includes('Character 4')")
    menu = page.page.locator(".widget-dropdown").filter(has_text="replace by").locator("select")
    texts = page.text(TEXTS)
    menu.select_option("q")
    texts = page.changes(TEXTS, texts)
    page.wait_for("() => !document.querySelector('.tg.pending')")
    assert page.text(".tg .yours mark") == "q"
    assert "put here" in page.text(".tg table") or "q" in page.text(".tg .written")
    page.check()


def wide(page: Page) -> list[str]:
    """Boxes of a widget that are wider than the room they have, or have a scroll bar."""
    return page.page.evaluate(
        """() => [...document.querySelectorAll('.tg, .tg-live, .tg-live .widget-box')]
        .filter(box => box.scrollWidth > box.clientWidth || (box.scrollHeight > box.clientHeight
        && getComputedStyle(box).overflowY !== 'visible')).map(box => box.className)"""
    )


def test_the_widgets_follow_keyboard_mouse_and_typing(open_notebook, lab):
    text = lab.folder / "words.txt"
    text.write_text("the cat sat on the mat\n" * 40, encoding="utf-8", newline="\n")
    page = open_notebook([SMALL, f"window_explorer(load_corpus('file:{text.as_posix()}'))"])
    page.run_all()
    play(page)

    explorer = page.page.locator(".jp-OutputArea-output").filter(has_text="in one window")
    explorer.scroll_into_view_if_needed()
    before = explorer.inner_text()
    page.slider("start").locator(".noUi-handle").focus()
    page.page.keyboard.press("ArrowRight")
    page.wait_for("old => !document.body.innerText.includes(old)", before[-60:])
    page.check()


def test_jupyterlab_does_not_ask_about_its_news(open_notebook):
    page = open_notebook(["print('ready')"])
    page.run_all()
    page.page.wait_for_timeout(3000)
    assert page.page.locator(".Toastify__toast").count() == 0


@pytest.mark.parametrize("width", [1280, 880])  # of which the playground has 1100 and 700
def test_the_playground_needs_no_scrolling_sideways(open_notebook, width):
    page = open_notebook([SMALL], width=width)
    page.run_all()
    for name, value in (("repetition", "1.5"), ("min-p", "0.1")):  # now all columns are there
        picture = page.text(PICTURE)
        page.slider(name).locator(".widget-readout").click()
        page.page.keyboard.press("Control+a")
        page.page.keyboard.type(f"{value}\n")
        page.changes(PICTURE, picture)
    assert len(heads(page)) == 2 * 7
    assert wide(page) == []


def test_what_is_wrong_shows_as_a_line(open_notebook):
    page = open_notebook([SMALL])
    page.run_all()
    page.page.locator(".widget-textarea textarea").fill("ROMEO 5")
    page.wait_for("() => document.querySelector('.tg-error')")
    assert "prompt: the model does not know '5'" in page.text(".tg-error")
    page.page.locator(".widget-textarea textarea").fill("ROMEO")
    page.wait_for("() => !document.querySelector('.tg-error') && !document.querySelector('.old')")
    page.check()


LESSON = ROOT / "notebooks" / "03_decoding_strategies.ipynb"


@pytest.mark.skipif(not LESSON.exists(), reason=f"{LESSON.name} is not there yet")
def test_the_lesson_on_decoding_runs_and_plays(open_notebook):
    page = open_notebook(LESSON)
    page.run_all(seconds=400)
    play(page)


EXPERTS = """
import torch
from tinygpt import CharTokenizer, ModelConfig, MoEConfig, TinyGPT
from tinygpt.widgets import routing_explorer
torch.manual_seed(0)
tokenizer = CharTokenizer("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ,.:;!?'\\n")
config = ModelConfig(tokenizer.vocab_size, block_size=64, n_layer=2, n_head=2, n_embd=32,
                     moe=MoEConfig(n_experts=4, top_k=2, norm_topk_prob=True))
model = TinyGPT(config)
model.tokenizer = tokenizer
for parameter in model.parameters():
    parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
tables = {step: torch.randint(99, (2, tokenizer.vocab_size, 4)) for step in (0, 100, 200)}
routing_explorer(model, tables=tables)
"""
TILES, LOSS = ".tg:has(> .tiles)", ".tg:has(.cards)"
TRAINING = ".tg:has(svg):has(details)"


def tiles(page: Page) -> list[tuple[str, str]]:
    """Class and computed colour of each tile of the routing explorer's text."""
    return page.page.evaluate(
        """s => [...document.querySelector(s).querySelectorAll('.tiles > b')]
        .map(b => [b.className, getComputedStyle(b).borderTopColor])""",
        TILES,
    )


def explore(page: Page) -> None:
    """Another layer by keyboard, another text, an expert dropped, another step of training."""
    explorer = page.page.locator(".widget-vbox:has(.widget-toggle-buttons):has(.tiles)").first
    explorer.scroll_into_view_if_needed()
    page.wait_for("() => !document.querySelector('.tg.pending')")
    shown, seen = page.text(TILES), tiles(page)
    assert len({colour for _, colour in seen}) > 1
    layers = explorer.locator(".widget-toggle-buttons button")
    layers.nth(1).focus()
    page.page.keyboard.press("Enter")
    shown = page.changes(TILES, shown)
    name = layers.nth(1).inner_text().strip()
    assert shown.startswith(f"{name.capitalize()}:")
    page.shows(LOSS, f"lost without it, {name}")
    assert tiles(page) != seen

    explorer.locator(".widget-textarea textarea").fill("The rain, the wind.\nGo on!\n")
    page.changes(TILES, shown)
    assert len(tiles(page)) == len("The rain, the wind.\nGo on!\n")
    menu = explorer.locator(".widget-dropdown").filter(has_text="drop").locator("select")
    expert = tiles(page)[0][0].removeprefix("e")[0]
    menu.select_option(f"expert {expert}")
    page.shows(TILES, f"struck out: expert {expert}, dropped")
    page.shows(LOSS, f"without expert {expert}")
    page.wait_for("() => !document.querySelector('.tg.pending')")
    assert "at its own characters" in page.text(LOSS)
    assert tiles(page)[0][0].endswith(" off")
    assert page.page.locator(f"{LOSS} .card").count() >= 2

    handle = explorer.locator(".widget-slider").filter(has_text="step").locator(".noUi-handle")
    if handle.is_visible():
        trained = page.text(TRAINING)
        handle.focus()
        page.page.keyboard.press("ArrowLeft")
        page.changes(TRAINING, trained)
    explorer.locator(".widget-textarea textarea").fill("The rain ß")
    page.shows("body", "the model does not know 'ß'")
    assert wide(page) == []
    page.check()


@pytest.mark.parametrize("width", [1280, 880])
def test_the_routing_explorer_follows_keyboard_and_typing(open_notebook, width):
    page = open_notebook([EXPERTS], width=width)
    page.run_all()
    explore(page)


EXPERTS_LESSON = ROOT / "notebooks" / "04_moe_gate_experts.ipynb"


@pytest.mark.skipif(not EXPERTS_LESSON.exists(), reason=f"{EXPERTS_LESSON.name} is not there yet")
def test_the_lesson_on_experts_runs_and_plays(open_notebook):
    page = open_notebook(EXPERTS_LESSON)
    page.run_all(seconds=400)
    explore(page)


ROUTER_LAB = """
import threading, torch
from tinygpt import load_corpus
from tinygpt.widgets import live, router_lab
worked, step = set(), live.Later._step
def watched(later):
    worked.add(threading.current_thread().name)
    return step(later)
live.Later._step = watched
lab = router_lab(load_corpus("tinyplays"))
lab"""
DRAWS = """
torch.manual_seed(3)
print("drawn", torch.rand(2).tolist())
import asyncio
await asyncio.sleep(0.3)
print("drawn", torch.rand(2).tolist())"""
FACTS, SAID, STATUS = ".tg-lab .facts", ".tg-lab .said", ".tg-lab .tg-status"


def press(page: Page, name: str) -> None:
    """Press a button of the router lab by keyboard."""
    button = page.page.locator(".tg-lab button").filter(has_text=name)
    button.focus()
    page.page.keyboard.press("Enter")


def wait_for_updates(page: Page, n: int) -> None:
    page.wait_for(f"() => parseInt(document.querySelector('{FACTS}').innerText) >= {n}")


def run_cell(page: Page, index: int) -> str:
    """Run one cell, wait for its end, and return what it printed."""
    page.page.evaluate(
        """i => { window.done = false; window.jupyterapp.shell.currentWidget.content
        .activeCellIndex = i; window.jupyterapp.commands.execute('notebook:run-cell')
        .then(() => { window.done = true }) }""",
        index,
    )
    page.wait_for("() => window.done")
    return page.page.locator(".jp-Notebook-cell").nth(index).locator(".jp-OutputArea").inner_text()


def test_the_router_lab_collapses_and_is_cured_before_one_s_eyes(open_notebook):
    source = [ROUTER_LAB, DRAWS, "print(sorted(worked))", "while True: pass"]
    page = open_notebook(source, width=1366, height=768)
    run_cell(page, 0)
    lab = page.page.locator(".tg-lab")
    lab.scroll_into_view_if_needed()
    alone = run_cell(page, 1)
    assert alone.count("drawn") == 2
    assert page.text(FACTS).startswith("0")  # nothing starts by itself
    noise = page.page.get_by_label("noise")
    noise.focus()
    for key, value in (("ArrowDown", "learned"), ("ArrowUp", "none")):  # not to another cell
        page.page.keyboard.press(key)
        assert noise.input_value() == value

    press(page, "Start")
    page.shows(STATUS, "Training")
    wait_for_updates(page, 20)
    assert run_cell(page, 1) == alone  # the same random numbers
    press(page, "Start")  # 20 seconds from here on
    wait_for_updates(page, 300)
    page.shows(SAID, "Collapse")
    tiles = page.text(".tg-lab .flow")
    press(page, "Start")  # and 20 seconds more, however slow the machine
    press(page, "Switch loss")
    page.shows(SAID, "Cured")
    page.changes(".tg-lab .flow", tiles)
    assert "Switch loss 0.1" in page.page.locator(".tg-lab .charts svg").first.inner_html()

    page.page.evaluate("() => window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
    wait_for_updates(page, 1 + int(page.text(FACTS).split()[0].replace(",", "")))
    press(page, "Pause")
    page.shows(STATUS, "Paused")
    held = page.text(FACTS)
    page.page.wait_for_timeout(500)
    assert page.text(FACTS) == held
    press(page, "Reset")
    page.shows(SAID, "Not trained yet")
    press(page, "Start")
    wait_for_updates(page, 10)
    page.shows(SAID, "Grey, the run before")
    press(page, "Pause")
    page.shows(STATUS, "Paused")
    assert run_cell(page, 2).strip() == "['MainThread']"
    fits = lab.evaluate("box => box.getBoundingClientRect().height")
    panel = page.page.locator(".jp-WindowedPanel-outer").bounding_box()
    assert fits < panel["height"]
    for width in (1366, 880):
        page.page.set_viewport_size({"width": width, "height": 768})
        assert wide(page) == []
    page.check()
    interrupt(page)


def interrupt(page: Page) -> None:
    """A cell that blocks while the lab trains is interrupted; the lab goes on."""
    press(page, "Start")
    page.shows(STATUS, "Training")
    page.page.evaluate(
        """() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 3;
        window.jupyterapp.commands.execute('notebook:run-cell') }"""
    )
    page.wait_for(f"() => {_KERNEL}.status === 'busy'")
    held = int(page.text(FACTS).split()[0].replace(",", ""))
    page.page.evaluate("() => window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
    page.wait_for("() => window.errors.length")
    assert "KeyboardInterrupt" in page.page.evaluate("() => window.errors.join()")
    wait_for_updates(page, held + 5)
    press(page, "Pause")
    page.shows(STATUS, "Paused")


HEADS = """
import pathlib
import torch
from tinygpt import CharTokenizer, ModelConfig, TinyGPT
from tinygpt.widgets import attention_explorer, pictures
pictures.PICTURES = pathlib.Path("pictures").absolute()
torch.manual_seed(0)
tokenizer = CharTokenizer("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ,.:;!?'\\n")
model = TinyGPT(ModelConfig(tokenizer.vocab_size, block_size=64, n_layer=4, n_head=4, n_embd=32))
model.tokenizer = tokenizer
for parameter in model.parameters():
    parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
attention_explorer(model)
"""
MAP, AFTER = ".tg:has(.axes)", ".tg:has(.cards)"


def attend(page: Page) -> None:
    """Another layer, head and character by keyboard; scores; a head off; another text."""
    page.wait_for("() => document.querySelector('.tg .wall')?.innerText.match(/[+−]0/)")
    page.slider("layer").locator(".noUi-handle").focus()
    page.page.keyboard.press("ArrowRight")
    page.shows(MAP, "Layer 1, head 0")
    page.slider("head").locator(".noUi-handle").focus()
    page.page.keyboard.press("End")
    page.shows(MAP, "Layer 1, mean of heads")
    page.slider("character").locator(".noUi-handle").focus()
    last = page.page.locator(".tg .read b").count() - 1
    page.page.keyboard.press("ArrowLeft")
    page.shows(MAP, f"Character {last - 1},")
    assert page.page.locator(".tg .read b.later").count() == 1
    page.page.get_by_role("button", name="scores").focus()
    page.page.keyboard.press("Enter")
    page.shows(MAP, "score")

    page.page.get_by_role("button", name="switch it off").focus()
    page.page.keyboard.press("Enter")
    page.shows(AFTER, "without layer 1, all heads")
    assert page.page.locator(".tg .wall .off").count() == 4
    assert page.page.locator(f"{AFTER} .card").count() == 2
    page.page.get_by_role("button", name="save SVG").focus()
    page.page.keyboard.press("Enter")
    page.shows(".tg-saved", "attention-scores-layer-1-mean-of-heads")
    page.page.get_by_label("text", exact=True).fill("No ß")
    page.shows("body", "the model does not know 'ß'")
    page.page.get_by_label("text", exact=True).fill("Romeo, Romeo")
    page.wait_for("() => document.querySelectorAll('.tg .read b').length === 12")
    page.wait_for("() => !document.querySelector('.tg.old') && !document.querySelector('.pending')")
    assert wide(page) == []
    page.check()


@pytest.mark.parametrize("width", [1366, 980, 683])
def test_the_attention_explorer_follows_the_keyboard(open_notebook, lab, width):
    page = open_notebook([HEADS], width=width)
    page.run_all()
    attend(page)
    assert (lab.folder / "pictures" / "attention-scores-layer-1-mean-of-heads.svg").exists()


def test_the_attention_explorer_is_in_sight_on_a_laptop(open_notebook):
    page = open_notebook([HEADS], width=1366, height=768)
    page.run_all()
    page.page.get_by_role("button", name="switch it off").click()
    page.shows(AFTER, "without layer 0, head 0")
    page.page.locator(".tg-attention").evaluate("box => box.scrollIntoView()")
    for part in (".tg-attention", ".tg .wall", MAP, AFTER):
        seen = page.page.locator(part).first.evaluate(
            """part => { const box = part.getBoundingClientRect(), frame = document
            .querySelector('.jp-WindowedPanel-outer').getBoundingClientRect();
            return frame.top - 1 <= box.top && box.bottom <= frame.bottom + 1 }"""
        )
        assert seen, part


REAL = """
from tinygpt import load_run
from tinygpt.widgets import routing_explorer, sampling_playground
"""


@pytest.mark.parametrize(
    ("made", "parts"),
    [
        ("sampling_playground(load_run('laptop-dense'))", [".tg-panel", PICTURE, TEXTS]),
        (
            "routing_explorer(load_run('laptop-moe'))",
            [".tg-choice", TILES, LOSS, ".tg-figures .tg"],
        ),
    ],
)
def test_what_a_control_changes_is_in_sight_on_a_laptop(open_notebook, made, parts):
    page = open_notebook([REAL + made], width=1366, height=768)
    page.run_all()
    page.wait_for("() => !document.querySelector('.tg.pending')")
    page.page.locator(parts[0]).first.evaluate("box => box.scrollIntoView()")
    for part in parts:
        seen = page.page.locator(part).first.evaluate(
            """part => { const box = part.getBoundingClientRect(), frame = document
            .querySelector('.jp-WindowedPanel-outer').getBoundingClientRect();
            return [box.top - frame.top, frame.bottom - box.bottom] }"""
        )
        assert min(seen) > -2, (part, seen)
    for width in (1366, 1000, 760, 560):  # the controls keep their order
        page.page.set_viewport_size({"width": width, "height": 768})
        boxes = [part.bounding_box() for part in page.page.locator(f"{parts[0]} > *").all()]
        for one, other in pairwise(boxes):  # the next is to the right of each, or below it
            beside = other["x"] > one["x"] + one["width"] - 2
            assert beside or other["y"] > one["y"] + one["height"] - 8, (width, one, other)
        assert wide(page) == []


def executed(source: list[str], folder: Path) -> nbformat.NotebookNode:
    """A notebook as it is committed: with outputs, and of each widget its still picture."""
    notebook = new_notebook(source)
    nbclient.execute(notebook, cwd=str(folder), timeout=120)
    still(notebook)
    return notebook


def test_before_anything_is_run_a_sentence_and_a_picture_are_there(browser, lab, tmp_path):
    bar = "from tinygpt.progress import progress\nwith progress(total=5) as bar:\n    bar.update(5)"
    notebook = executed([SMALL, bar, EXPERTS, HEADS], tmp_path)
    nbformat.write(notebook, lab.folder / "committed.ipynb")
    page = Page(browser, lab, "committed.ipynb", 1366, 768)
    outputs = page.page.locator(".jp-OutputArea-output")
    page.wait_for("() => document.querySelectorAll('.jp-OutputArea-output img').length === 3")
    seen = "\n".join(outputs.all_inner_texts())
    assert seen.count("This is a still picture of it") == 3
    assert "100%|" in seen
    for broken in ("model not found", "children=(", "Loading widget", "0/5"):
        assert broken not in seen
    images = page.page.locator(".jp-OutputArea-output img")
    alts = [image.get_attribute("alt") for image in images.all()]
    assert "after each step" in alts[0]
    for image in images.all():
        assert image.evaluate("i => i.complete && i.naturalWidth > 0 && i.offsetHeight < 600")
    page.run_all()  # with a kernel the widgets are there
    page.wait_for("() => document.querySelectorAll('.jupyter-widgets .tg').length > 5")
    assert page.page.locator(".jp-OutputArea-output img").count() == 0
    page.page.close()

    exported, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    assert exported.count("This is a still picture of it") == 3
    assert all(html.escape(alt) in exported for alt in alts)


def test_a_cell_that_raises_is_reported(open_notebook):
    page = open_notebook(["print('fine')", "1 / 0", "print('not reached')"])
    with pytest.raises(NotebookError, match="ZeroDivisionError"):
        page.run_all()


def test_a_control_that_raises_is_reported(open_notebook):
    source = """
    import ipywidgets
    slider = ipywidgets.IntSlider(description="broken")
    slider.observe(lambda change: 1 / 0, names="value")
    slider"""
    page = open_notebook([source.replace("\n    ", "\n")])
    page.run_all()
    page.slider("broken").locator(".noUi-handle").focus()
    page.page.keyboard.press("ArrowRight")
    page.wait_for("() => window.errors.length")
    with pytest.raises(NotebookError, match="ZeroDivisionError"):
        page.check()
