"""Set-ups for other machines: their files, and (slow) fresh environments made from them."""

import json
import os
import re

import pytest

from tinygpt.files import ROOT

from . import setups
from .test_project import PYPROJECT

posix = pytest.mark.skipif(os.name == "nt", reason="containers have Linux")
GUARANTEED, MOST = 1.0, 2.0  # GB that Binder gives, and above which it ends a kernel


@posix
@pytest.mark.full
@pytest.mark.parametrize("form", [setups.binder, setups.colab])  # a container: as .ci/run does
def test_a_fresh_environment_runs_the_first_notebook(form):
    assert setups.tried(form) < GUARANTEED


def test_the_forms_have_a_python_of_the_range():
    """And torch's build for CPUs alone: the other one is four gigabytes larger."""
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    binder = (ROOT / ".binder" / "runtime.txt").read_text()
    low, high = re.findall(r"3\.(\d+)", PYPROJECT["project"]["requires-python"])
    for named in (container["image"], binder):
        assert int(low) <= int(re.search(r"3\.(\d+)", named)[1]) < int(high)
    assert container["containerEnv"] == {"PIP_EXTRA_INDEX_URL": setups.INDEX}
    assert setups.INDEX in (ROOT / ".binder" / "requirements.txt").read_text()
    assert os.access(ROOT / ".binder" / "postBuild", os.X_OK)
