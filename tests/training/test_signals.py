import signal

import pytest

from tinygpt.training.signals import act_on, noted_signals

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("signum", BOTH)
def test_the_first_is_noted_the_second_acts(signum):
    before = [signal.getsignal(s) for s in BOTH]
    with pytest.raises((KeyboardInterrupt, SystemExit)) as caught, noted_signals() as noted:
        assert noted == []
        signal.raise_signal(signum)
        assert noted == [signum]
        signal.raise_signal(signum)
        raise AssertionError("still here")
    assert caught.type is (SystemExit if signum == signal.SIGTERM else KeyboardInterrupt)
    assert [signal.getsignal(s) for s in BOTH] == before


def test_sigterm_ends_with_143():
    with pytest.raises(SystemExit) as stop:
        act_on(signal.SIGTERM)
    assert stop.value.code == 143
