"""The larger experiments, 06 to 08, belong to the slow tier: `pytest -m full`."""


def pytest_itemcollected(item):
    if item.path.name[:2] in ("06", "07", "08"):
        item.add_marker("full")
