"""Devices, precision and what the machine is said to be."""

import threading

import pytest
import torch

from tinygpt import PRESETS, TinyGPT, runtime
from tinygpt.errors import ConfigError


def test_auto_is_the_cpu_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.pick_device() == torch.device("cpu")


@pytest.mark.parametrize("device", ["cuda:99", "meta", "tpu"])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(ConfigError, match=f"device='{device}'"):
        runtime.pick_device(device)


def test_precision():
    cpu = torch.device("cpu")
    a = torch.ones(2, 2)
    with runtime.autocast(cpu):
        assert (a @ a).dtype == torch.float32
    with runtime.autocast(cpu, "bf16"):
        assert (a @ a).dtype == torch.bfloat16


def test_a_seed_fixes_torch():
    draws = []
    for _ in range(2):
        runtime.seed_all(5)
        draws.append(torch.rand(3))
    assert torch.equal(*draws)


def test_environment_names_what_a_bug_report_needs():
    facts = runtime.environment()
    assert facts["torch"] == torch.__version__
    assert {"python", "device", "threads", "jupyterlab"} <= set(facts)


def test_one_thread_is_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with runtime.one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with runtime.one_thread(when=False):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_one_thread_in_another_order_or_in_each_other(two_threads):
    first, second = runtime.one_thread(), runtime.one_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__()
    assert torch.get_num_threads() == 1
    second.__exit__()
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), runtime.one_thread():
        with runtime.one_thread():
            pass
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 2


def test_one_thread_in_two_threads_of_python(two_threads):
    """One that is new and begins inside of another's context is not left with one for good."""
    inside, left, counts = threading.Event(), threading.Event(), {}

    def other():
        with runtime.one_thread():
            inside.set()
            left.wait(10)
            counts["inside"] = torch.get_num_threads()
        counts["after"] = torch.get_num_threads()

    thread = threading.Thread(target=other)
    with runtime.one_thread():
        thread.start()
        inside.wait(10)
    assert torch.get_num_threads() == 2
    left.set()
    thread.join()
    assert counts == {"inside": 1, "after": 2}
    assert torch.get_num_threads() == 2
    newest = []
    thread = threading.Thread(target=lambda: newest.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert newest == [2]


def test_one_thread_in_generators_that_take_turns(two_threads):
    def work():
        for i in range(3):
            with runtime.one_thread():
                torch.rand(3)
            yield i

    one, other = work(), work()
    for _ in zip(one, other, strict=True):
        assert torch.get_num_threads() == 2

    def bad():  # yields in it, and is broken off
        with runtime.one_thread():
            yield

    first, second = bad(), bad()
    next(first)
    next(second)
    first.close()
    del second
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("preset", ["tiny", "tiny-moe", "modern"])
def test_shapes_only_are_those_of_the_model(preset):
    config, state = PRESETS[preset].model, torch.get_rng_state()
    with runtime.shapes_only():
        blank = TinyGPT(config)
    assert state.equal(torch.get_rng_state())  # nothing was drawn
    assert all(t.is_meta for t in (*blank.parameters(), *blank.buffers()))
    shapes = {name: (t.shape, t.dtype) for name, t in blank.state_dict().items()}
    real = TinyGPT(config)
    assert shapes == {name: (t.shape, t.dtype) for name, t in real.state_dict().items()}
    assert not any(p.is_meta for p in real.parameters())  # the context has ended


def test_each_process_of_a_machine_has_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert runtime.pick_device() == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [str(runtime.pick_device(name)) for name in ("auto", "cuda", "cuda:0", "cpu")] == [
        *("cuda:1", "cuda:1", "cuda:0", "cpu")
    ]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="use at most 2 processes on this machine"):
        runtime.pick_device()
