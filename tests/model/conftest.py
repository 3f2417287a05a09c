import pytest

from ..tools import VARIANTS


@pytest.fixture(params=VARIANTS)
def config(request):
    return VARIANTS[request.param]
