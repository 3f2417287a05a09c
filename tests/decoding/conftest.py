import pytest

from ..tools import VARIANTS, ready


@pytest.fixture(params=VARIANTS)
def model(request):
    """A model with block_size 24 and a distribution that is neither flat nor certain."""
    return ready(VARIANTS[request.param])
