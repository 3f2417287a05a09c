"""Several processes make the updates of one: two of them, with gloo, on a CPU."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from datetime import timedelta

import pytest
import safetensors.torch
import torch
from safetensors.torch import save_file
from torch import distributed

from tinygpt import (
    MetricsLogger,
    ModelConfig,
    MoEConfig,
    TinyGPT,
    TrainConfig,
    Trainer,
    cli,
    load_run,
)
from tinygpt.corpora import Batches
from tinygpt.errors import CheckpointError, ConfigError, GroupError
from tinygpt.files import ROOT
from tinygpt.measure import evaluate
from tinygpt.ranks import join, whole
from tinygpt.training import (
    Run,
    checkpoints,
    export_run,
    latest_checkpoint,
    load_checkpoint,
    verify,
)
from tinygpt.training.manifest import write_manifest

from ..processes import PATIENCE, forks, together
from ..tools import DISPATCHES, same_state

pytestmark = forks

BIAS = MoEConfig(n_experts=4, top_k=2, balance="bias", bias_rate=0.01)
LOSSES = MoEConfig(
    n_experts=4, noisy=False, balance="loss", balance_weight=0.1, z_weight=0.01, cv_weight=0.01
)
SHORT = TrainConfig(
    max_steps=12, batch_size=6, eval_interval=6, warmup_steps=2, schedule="constant"
)
TWICE = replace(SHORT, activation_checkpointing=True)
CASES = {  # what is trained, and how
    "dense, adamw": (None, {}),
    "biases, adamw": (BIAS, {}),
    "biases, muon": (BIAS, {"optimizer": "muon", "grad_accum_steps": 2}),
    "losses, adamw": (LOSSES, {"grad_accum_steps": 2, "activation_checkpointing": True}),
    "losses, muon": (LOSSES, {"optimizer": "muon", "batch_size": 5}),
}


def model_for(small, moe=None, **changes):
    torch.manual_seed(0)
    # a key's bias has no gradient but rounding, which AdamW would make as large as any
    return TinyGPT(replace(small, moe=moe, attn_bias=False, **changes))


def ignoring(draw):
    """Batches of which some rows have few targets: unequally many on the ranks."""

    def batch():
        x, y = draw()
        y = y.masked_fill((x[:, :1] % 3 > 0) & (torch.arange(y.shape[1]) > 2), -100)
        return x, y

    return batch


def train(small, corpus, config, moe, folder=None):
    """The losses, norms, biases and weights of a training."""
    trainer = Trainer(model_for(small, moe), corpus, config, folder)
    trainer.batches.draw = ignoring(trainer.batches.draw)
    steps, train_step = [], trainer.train_step

    def noted():
        train_step()
        biases = [b.clone() for n, b in trainer.model.named_buffers()]
        steps.append((trainer.loss, trainer.grad_norm, biases))
        return trainer.loss

    trainer.train_step = noted
    trainer.fit(progress=False)
    weights = [whole(p.detach()).clone() for p in trainer.model.parameters()]
    rows = [(row["val_lm_loss"], row["train_lm_loss"]) for row in trainer.metrics.rows]
    return steps, rows, trainer.whole_val_lm_loss, weights


def trainings(small, corpus, updates, cases, strategies=("ddp", "fsdp")):
    """The trainings of some cases, in this process and those beside it."""
    return {
        (name, strategy): train(
            small, corpus, replace(SHORT, max_steps=updates, strategy=strategy, **how), moe
        )
        for name in cases
        for moe, how in [CASES[name]]
        for strategy in strategies
    }


def assert_equal_trainings(actual, expected, routed):
    steps, rows, wholes, weights = actual
    # of 100 updates a late one may find a token so near to two experts that rounding decides: then
    # losses part, by 1 % or 2 %, and weights and norms by much more
    parted, pairs = False, zip(steps, expected[0], strict=True)
    for step, ((loss, norm, biases), (loss_1, norm_1, biases_1)) in enumerate(pairs):
        same = loss == pytest.approx(loss_1, rel=1e-6) and all(map(torch.equal, biases, biases_1))
        parted |= not same and routed and step >= 30
        if parted:
            assert loss == pytest.approx(loss_1, rel=0.05)
            torch.testing.assert_close(biases, biases_1, rtol=0, atol=10 * BIAS.bias_rate)
        else:
            assert same, (step, loss, loss_1, biases, biases_1)
            assert norm == pytest.approx(norm_1, rel=1e-3)
    # evaluations read more tokens, of which one is so near sooner
    near = 0.05 if parted else 1e-6 if len(steps) == SHORT.max_steps else 1e-3
    for row, row_1 in zip(rows, expected[1], strict=True):
        assert row == pytest.approx(row_1, rel=near)
    assert wholes == pytest.approx(expected[2], rel=near)
    if not parted:
        torch.testing.assert_close(weights, expected[3], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("updates", "cases"),
    [
        (12, ["biases, muon", "losses, adamw"]),
        pytest.param(100, CASES, marks=pytest.mark.full),
    ],
)
def test_two_processes_train_as_one(corpus, small, tmp_path, updates, cases):
    expected = trainings(small, corpus, updates, cases, ["ddp"])
    found = together(tmp_path, lambda: trainings(small, corpus, updates, cases))
    for case, strategy in found[0]:
        first, second = (results[case, strategy] for results in found)
        assert_equal_trainings(first, expected[case, "ddp"], routed=CASES[case][0] is not None)
        assert [step[:2] for step in first[0]] == [step[:2] for step in second[0]]
        assert first[1:3] == second[1:3]
        assert all(map(torch.equal, first[0][-1][2], second[0][-1][2]))


def test_a_run_moves_between_one_process_two_copies_and_two_shards(corpus, small, tmp_path):
    config = replace(SHORT, optimizer="muon", eval_interval=3, keep_last=9, sample_tokens=4)

    def go(updates, strategy, folder):
        now = replace(config, max_steps=updates, strategy=strategy)
        if folder.exists() and checkpoints(folder):
            trainer = Trainer.resume(folder, corpus, now)
        else:
            trainer = Trainer(model_for(small, BIAS), corpus, now, folder)
        trainer.fit(progress=False)
        return trainer.samples

    alone, run = tmp_path / "alone", tmp_path / "run"
    samples = go(18, "ddp", alone)
    go(3, "ddp", run)
    together(tmp_path, lambda: go(6, "ddp", run))
    assert together(tmp_path, lambda: go(9, "fsdp", run)) == [samples[3:4]] * 2
    check_shards(run, "step_0000009")
    assert same_state(load_run(run / "best"), load_run(run))  # whole, for every reader
    assert (run / "best" / "model.safetensors").is_file()
    go(12, "fsdp", run)
    together(tmp_path, lambda: go(15, "fsdp", run))
    together(tmp_path, lambda: go(18, "ddp", run))
    for step in range(0, 19, 3):
        found, expected = (load_checkpoint(f / f"step_{step:07d}") for f in (run, alone))
        assert found.state["best_val_loss"] == pytest.approx(
            expected.state["best_val_loss"], rel=1e-6
        )
        assert found.training.keys() == expected.training.keys()
        for name in ("blocks.0.ffn.router.bias", "blocks.1.ffn.router.bias"):
            assert torch.equal(found.model.get_buffer(name), expected.model.get_buffer(name))
        for name, tensor in expected.model.state_dict().items():
            torch.testing.assert_close(found.model.state_dict()[name], tensor, atol=1e-4, rtol=0)
    rows = (run / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(step) for step in range(0, 19, 3)]


def check_shards(run, name):
    files = {path.name for path in (run / name).iterdir()}
    shards = {f"shard-0000{i}-model-00001-of-00001.safetensors" for i in (1, 2)}
    words = {"config.json", "manifest.json", "state.json", "tokenizer.json"}
    assert files == words | shards == {*verify(run / name), "manifest.json"}
    assert not list(run.glob(".tmp-*"))


@pytest.fixture(scope="module")
def sharded_once(corpus, tmp_path_factory):
    """A run of two processes with FSDP2; and what each has of it at the end."""
    folder = tmp_path_factory.mktemp("sharded")
    shape = ModelConfig(corpus.tokenizer.vocab_size, 16, 2, 2, 16)

    def go():
        torch.manual_seed(join().rank)  # the first one's weights count
        config = replace(SHORT, strategy="fsdp", keep_last=1)
        trainer = Trainer(TinyGPT(shape), corpus, config, folder / "run")
        trainer.fit(progress=False)
        return {name: whole(t) for name, t in trainer.model.state_dict().items()}

    return folder / "run", together(folder, go)[0]


@pytest.fixture
def sharded(sharded_once, tmp_path):
    return shutil.copytree(sharded_once[0], tmp_path / "run")


def test_shards_are_loaded_and_exported_as_whole_weights(sharded, sharded_once, corpus, tmp_path):
    latest = load_run(sharded, which="latest").state_dict()
    assert all(torch.equal(latest[name], tensor) for name, tensor in sharded_once[1].items())
    best = load_run(sharded)
    export_run(sharded, tmp_path / "shipped", corpus=corpus)
    assert (tmp_path / "shipped" / "model.safetensors").is_file()
    assert same_state(load_run(tmp_path / "shipped"), best)
    assert not [step for step in checkpoints(sharded) if step.name == "step_0000000"]


def test_shards_that_were_changed_or_added_are_found(sharded):
    folder = latest_checkpoint(sharded)
    first = folder / "shard-00001-model-00001-of-00001.safetensors"
    other = shutil.copy(first, folder / "other.safetensors")
    with pytest.raises(CheckpointError, match="other.safetensors is not in manifest"):
        verify(folder)
    os.remove(other)
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    with pytest.raises(CheckpointError, match="shard-00001.*is damaged"):
        load_checkpoint(folder)


def test_a_shard_that_claims_more_than_there_is_takes_no_memory(sharded):
    folder = latest_checkpoint(sharded)
    path = folder / "shard-00001-model-00001-of-00001.safetensors"
    where = json.dumps({"model.wte.weight": {"saved_offsets": [1 << 40, 0]}})
    save_file({"model.wte.weight": torch.ones(2, 16)}, path, {"DCP_SHARDING_INFO": where})
    for name in ("manifest.json", "shard-00002-model-00001-of-00001.safetensors"):
        os.remove(folder / name)
    write_manifest(folder)
    with pytest.raises(CheckpointError, match="wte.weight has .* numbers, its parts"):
        load_checkpoint(folder)


def test_a_shard_that_cannot_be_written_stops_all_and_leaves_nothing(corpus, small, tmp_path):
    config = replace(SHORT, strategy="fsdp")

    def go():
        trainer = Trainer(model_for(small), corpus, config, tmp_path / "run")
        if join().rank == 1:
            safetensors.torch.save = lambda *args, **options: 1 / 0
        with pytest.raises(CheckpointError, match="could not write .*division by zero"):
            trainer.fit(progress=False)

    together(tmp_path, go)
    assert not checkpoints(tmp_path / "run")
    assert not list((tmp_path / "run").glob(".tmp-step*"))


def test_one_process_with_shards_is_one_without(corpus, small, tmp_path):
    def go(strategy):
        config = replace(SHORT, strategy=strategy, optimizer="muon", grad_accum_steps=2)
        trainer = Trainer(model_for(small, BIAS, dropout=0.1), corpus, config)
        trainer.fit(progress=False)
        return trainer.loss, {name: whole(t) for name, t in trainer.model.state_dict().items()}

    loss, weights = go("ddp")
    ((sharded_loss, sharded),) = together(tmp_path, lambda: go("fsdp"), world=1)
    assert sharded_loss == loss
    assert all(torch.equal(sharded[name], tensor) for name, tensor in weights.items())


def test_weights_in_bf16_for_the_products_alone(corpus, small, tmp_path):
    """FSDP2's precision policy trains as autocast does, but for bf16's rounding."""

    def go(strategy):
        config = replace(SHORT, strategy=strategy, precision="bf16")
        trainer = Trainer(model_for(small, LOSSES), corpus, config)
        trainer.fit(progress=False)
        assert all(t.dtype == torch.float32 for t in trainer.model.state_dict().values())
        return trainer.loss

    assert together(tmp_path, lambda: go("fsdp")) == [pytest.approx(go("ddp"), rel=0.02)] * 2


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_an_expert_without_a_token_on_one_process(corpus, small, tmp_path, strategy):
    moe = MoEConfig(n_experts=24)
    config = replace(SHORT, strategy=strategy, max_steps=2, batch_size=2)

    def go():
        for dispatch in DISPATCHES:
            model = model_for(small, replace(moe, dispatch=dispatch))
            Trainer(model, corpus, config).fit(progress=False)
        x, _ = Batches(corpus.train, 2, 16, config.seed, *vars(join()).values()).draw()
        return model_for(small, moe)(x, return_routing=True).routing[0].counts()

    first, second = together(tmp_path, go)
    assert ((first == 0) & (second > 0)).any()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_what_each_process_has_of_its_own_and_what_not(corpus, small, tmp_path, strategy):
    def go():
        torch.manual_seed(join().rank)
        model, seeds = TinyGPT(replace(small, dropout=0.5)), []
        trainer = Trainer(model, corpus, replace(SHORT, strategy=strategy))
        weights = whole(model.blocks[1].ffn.c_fc.weight).tolist()
        for _ in range(2):
            trainer.train_step()
            seeds.append(torch.initial_seed())
        return weights, seeds

    torch.manual_seed(0)
    of_first = TinyGPT(replace(small, dropout=0.5)).blocks[1].ffn.c_fc.weight.tolist()
    (weights, seeds), (others, other_seeds) = together(tmp_path, go)
    assert weights == others == of_first
    assert len({*seeds, *other_seeds}) == 4


def test_gradients_are_exchanged_once_in_an_update(corpus, small, tmp_path):
    x, y = Batches(corpus.train, 2, 16, seed=0).draw()

    def go(strategy):
        trainer = Trainer(model_for(small), corpus, replace(SHORT, strategy=strategy))
        weight = trainer.model.lm_head.weight
        with trainer.engine.adding(last=False):
            trainer._forward(x, y + join().rank).loss.backward()
        assert not trainer.engine.recordable
        return weight.grad is None or weight.grad.sum(1).tolist()

    alone = [Trainer(model_for(small), corpus, c).engine.recordable for c in (SHORT, TWICE)]
    assert alone == [True, False]
    for strategy in ("ddp", "fsdp"):
        first, second = together(tmp_path, lambda strategy=strategy: go(strategy))
        assert first is second is True if strategy == "fsdp" else first != second


@pytest.mark.full
def test_one_that_hangs_ends_the_others_after_a_while(tmp_path, monkeypatch):
    # where they meet is open already, as under torchrun: nobody else can take its port
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setattr("tinygpt.ranks.TIMEOUT", timedelta(seconds=3))

    def go():
        rank = join().rank
        distributed.destroy_process_group()
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
        os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
        ranks = join()
        assert ranks.largest(rank) == 1
        if rank == 1:
            time.sleep(10)
            os._exit(0)
        with pytest.raises(GroupError, match="did not answer within 0:00:03"), ranks.watching():
            ranks.largest(0)
        os._exit(0)

    assert together(tmp_path, go) == [None, None]


def test_no_number_is_left_with_another_thread(tmp_path):
    """Gloo's thread gives it up under Python's lock, which aborts a program that is ending."""

    def go():
        ranks, tensor, made = join(), torch.tensor, []

        def noted(number):
            made.append(weakref.ref(result := tensor(number)))
            return result

        torch.tensor = noted
        return [(ranks.largest(i), made[-1]() is None) for i in range(300)]

    assert together(tmp_path, go) == [[(i, True) for i in range(300)]] * 2


def test_a_signal_to_one_ends_all_after_the_same_update(corpus, small, tmp_path):
    def go():
        trainer = Trainer(model_for(small), corpus, SHORT, tmp_path / "run")
        train_step = trainer.train_step

        def signalled():
            if trainer.step == 4 and join().rank == 1:
                signal.raise_signal(signal.SIGTERM)
            return train_step()

        trainer.train_step = signalled
        with pytest.raises(SystemExit) as stop:
            trainer.fit(progress=False)
        return stop.value.code, trainer.step

    assert together(tmp_path, go) == [(143, 5)] * 2
    assert latest_checkpoint(tmp_path / "run").name == "step_0000005"
    Trainer.resume(tmp_path / "run", corpus).fit(progress=False)


def test_a_killed_process_ends_the_others_and_leaves_the_last_checkpoint(corpus, small, tmp_path):
    def go():
        trainer = Trainer(model_for(small), corpus, SHORT, tmp_path / "run")
        train_step = trainer.train_step

        def killed():
            if trainer.step == 8 and join().rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return train_step()

        trainer.train_step = killed
        with pytest.raises(GroupError, match="another of the 2 processes has ended"):
            trainer.fit(progress=False)
        return trainer.step

    assert together(tmp_path, go) == [8, None]
    assert latest_checkpoint(tmp_path / "run").name == "step_0000006"
    with Run.open(tmp_path / "run").writing():
        pass  # the lock is free


def test_what_only_the_first_finds_all_are_told(corpus, small, tmp_path, capfd):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").touch()

    def go():
        with pytest.raises(CheckpointError, match="holds thesis.txt"):
            Trainer(model_for(small), corpus, SHORT, tmp_path / "taken")
        with pytest.raises(ConfigError, match="batch_size=1 cannot be shared by 2 processes"):
            Trainer(model_for(small), corpus, replace(SHORT, batch_size=1))
        Trainer(model_for(small), corpus, replace(SHORT, max_steps=1, sample_tokens=3)).fit()

    together(tmp_path, go)
    assert capfd.readouterr().out.count("--- step 1") == 1


@pytest.mark.parametrize("length", [2, 9, 17, 40])
def test_a_short_split_is_shared_without_waiting(corpus, small, tmp_path, length):
    tokens, model = corpus.val[:length], model_for(small, BIAS).eval()
    expected = evaluate(model, tokens)

    def go():
        ranks, loss = join(), evaluate(model, tokens, ranks=join())
        config = replace(SHORT, strategy="fsdp")
        Trainer(model, corpus, config)
        return loss, evaluate(model, tokens, ranks=ranks)

    for losses in together(tmp_path, go):
        assert losses == pytest.approx((expected, expected), rel=1e-6)


def test_blocks_computed_twice_change_nothing(corpus, small):
    moe = replace(BIAS, jitter=0.1, expert_dropout=0.1)

    def go(again):
        model = model_for(small, moe, dropout=0.1)
        blocks, forward = [], model.blocks[0].forward
        model.blocks[0].forward = lambda *args: blocks.append(1) or forward(*args)
        config = replace(SHORT, activation_checkpointing=again, grad_accum_steps=2)
        trainer = Trainer(model, corpus, config)
        trainer.fit(progress=False)
        return model, trainer.loss, len(blocks)

    (plain, loss, calls), (other, same_loss, more_calls) = go(False), go(True)
    assert same_state(plain, other)
    assert (same_loss, more_calls) == (loss, calls + 2 * 12)


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
FLAGS = """
    --preset tiny-moe --device cpu --n-embd 16 --n-head 2 --batch-size 5 --eval-interval 10
    --max-eval-tokens 500 --max-steps 20
""".split()  # noqa: SIM905


def torchrun(*flags, world=2):
    """`torchrun --nproc-per-node=2 -m tinygpt train …`, started."""
    env = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    options = {"cwd": ROOT, "env": env, "text": True, "start_new_session": True}
    command = [*TORCHRUN, "--local-addr=127.0.0.1", f"--nproc-per-node={world}"]
    command += ["-m", "tinygpt", "train", *flags]
    return subprocess.Popen(command, stdout=-1, stderr=-1, **options)


@pytest.mark.full
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_the_command_line_under_torchrun(corpus, tmp_path, strategy):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    flags = [*FLAGS, "--corpus", corpus.name, "--strategy", strategy, "--out"]
    assert cli.main(["train", *flags, str(alone)]) == 0
    training = torchrun(*flags, str(shared))
    out, err = training.communicate(timeout=PATIENCE)
    assert training.returncode == 0, err
    assert out.count("the run is in") == out.count("weights)") == 1
    losses = [MetricsLogger(f / "metrics.csv").frame()["val_lm_loss"] for f in (alone, shared)]
    assert list(losses[0]) == pytest.approx(list(losses[1]), rel=1e-5)


@pytest.mark.full
def test_torchrun_is_told_to_end_and_goes_on(corpus, tmp_path):
    flags = [*FLAGS[:-2], "--corpus", corpus.name]
    training = torchrun(*flags, "--max-steps", "100000", "--out", str(tmp_path / "run"))
    deadline = time.monotonic() + PATIENCE
    while not checkpoints(tmp_path / "run") and time.monotonic() < deadline:
        time.sleep(0.1)
    training.terminate()
    out, _ = training.communicate(timeout=PATIENCE)
    stopped = int(re.search(r"stopped after step (\d+), saved", out)[1])
    assert latest_checkpoint(tmp_path / "run").name == f"step_{stopped:07d}"
    more = torchrun("--resume", str(tmp_path / "run"), "--max-steps", str(stopped + 3))
    assert more.wait(PATIENCE) == 0, more.stderr.read()


@pytest.mark.full
def test_a_wrong_flag_under_torchrun_is_one_line_of_each(tmp_path):
    training = torchrun("--preset", "tinny")
    _, err = training.communicate(timeout=PATIENCE)
    assert training.returncode == 1  # torchrun has no other
    said = [line for line in err.splitlines() if "tinny" in line and "error: " in line]
    assert [line.split(":")[0] for line in sorted(said)] == ["error", "process 1"]


@pytest.mark.cuda
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("world", [1, 2])
def test_cuda_processes_train_as_one(corpus, tmp_path, strategy, world):
    if torch.cuda.device_count() < world:
        pytest.skip(f"needs {world} GPUs")
    flags = [*FLAGS, "--corpus", corpus.name, "--strategy", strategy, "--out"]
    flags[flags.index("cpu")] = "cuda"
    folders = [tmp_path / "alone", tmp_path / "shared"]
    assert cli.main(["train", *flags, str(folders[0])]) == 0
    shared = torchrun(*flags, str(folders[1]), world=world)
    _, err = shared.communicate(timeout=PATIENCE)
    assert shared.returncode == 0, err
    losses = [MetricsLogger(f / "metrics.csv").frame()["val_lm_loss"] for f in folders]
    assert list(losses[0]) == pytest.approx(list(losses[1]), rel=0.02)
