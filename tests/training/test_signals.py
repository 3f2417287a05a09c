import signal

import pytest

from tinygpt import TinyGPT, Trainer
from tinygpt.training.signals import act_on, noted_signals

from ..tools import QUICK

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


def test_a_signal_that_is_ignored_stays_so(corpus, small):
    """As by nohup, or in the background of a script: the training goes on to its end."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        trainer = Trainer(TinyGPT(small), corpus, QUICK)
        evaluate = trainer._evaluate

        def watched(*args, **options):
            signal.raise_signal(signal.SIGINT)
            return evaluate(*args, **options)

        trainer._evaluate = watched
        trainer.fit(progress=False)
        assert trainer.step == QUICK.max_steps
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
