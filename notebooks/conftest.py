"""The larger experiments, 06 to 08, are slow: `pytest -m full`. All are compared up to rounding."""

from tests.outputs import lenient


def pytest_itemcollected(item):
    lenient(item)
    if item.path.name[:2] in ("06", "07", "08"):
        item.add_marker("full")
