"""What axe-core finds in the widgets in JupyterLab: nothing serious, in either theme, and zoomed.

axe-core (MPL-2.0) is fetched with npm for these tests alone.
"""

import hashlib
import shutil
import subprocess
import tarfile

import nbformat
import pytest

from .test_browser import EXPERTS, HEADS, SMALL, Page, browser, lab, new_notebook  # noqa: F401

pytestmark = pytest.mark.full

AXE = "axe-core@4.14.1"
SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
MODEL = SMALL.replace("sampling_playground(model)", "")
WINDOWS = MODEL + "window_explorer(load_corpus('tinyplays'))"
LAB = "from tinygpt import load_corpus\nfrom tinygpt.widgets import router_lab\n"
LAB += "made = router_lab(load_corpus('tinyplays'))\nmade.advance(20)\nmade"
WIDGETS = {"playground": SMALL, "routing": EXPERTS, "attention": HEADS, "windows": WINDOWS}
WIDGETS |= {"router lab": LAB}


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The path of axe-core's script."""
    if not shutil.which("npm"):
        pytest.skip("axe-core is fetched with npm, which is not there (Debian: apt install npm)")
    folder = tmp_path_factory.mktemp("axe")
    options = {"cwd": folder, "capture_output": True, "check": True, "timeout": 120}
    try:
        subprocess.run(["npm", "pack", AXE], **options)
    except subprocess.SubprocessError as error:  # no network, or one that does not answer
        pytest.skip(f"npm could not fetch {AXE}: {error} {(error.stderr or b'')[-300:]!r}")
    (tarball,) = folder.glob("*.tgz")
    assert hashlib.sha256(tarball.read_bytes()).hexdigest() == SHA256
    with tarfile.open(tarball) as archive:
        archive.extract("package/axe.min.js", folder, filter="data")
    return folder / "package" / "axe.min.js"


def serious(page, selector: str) -> list[str]:
    """What is serious or critical within the elements of a selector."""
    found = page.evaluate(
        """selector => axe.run([[selector]], {resultTypes: ['violations'],
        runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']}).then(found => found.violations)""",
        selector,
    )
    return [
        f"{each['id']}: {node['html'][:150]} {node['failureSummary'][:200]}"
        for each in found
        for node in each["nodes"]
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("name", WIDGETS)
def test_a_widget_has_no_serious_fault(browser, lab, axe, name):  # noqa: F811
    nbformat.write(new_notebook([WIDGETS[name]]), lab.folder / "accessible.ipynb")
    page = Page(browser, lab, "accessible.ipynb", 1366, 768)
    page.run_all()
    page.wait_for("() => !document.querySelector('.tg.pending')")
    page.page.add_script_tag(path=axe)
    for theme in ("Light", "Dark"):
        command = f"apputils:change-theme', {{theme: 'JupyterLab {theme}'}}"
        page.page.evaluate(f"() => window.jupyterapp.commands.execute('{command})")
        page.wait_for(
            "light => document.body.dataset.jpThemeLight === light", str(theme == "Light").lower()
        )
        for width, height in ((1366, 768), (683, 384)):  # the second as at 200 % zoom
            page.page.set_viewport_size({"width": width, "height": height})
            assert serious(page.page, ".jp-OutputArea-output") == [], (theme, width)
    page.check()
    page.page.evaluate("() => window.jupyterapp.serviceManager.sessions.shutdownAll()")
    page.page.close()
