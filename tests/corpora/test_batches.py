import pytest
import torch

from tinygpt.corpora import Batches, check_tokens, get_batch, take
from tinygpt.errors import ConfigError


def test_batches_are_windows_and_their_successors():
    tokens = torch.arange(100)
    x, y = get_batch(tokens, 64, 8, torch.Generator().manual_seed(3))
    assert x.shape == y.shape == (64, 8)
    assert torch.equal(y, x + 1)
    assert torch.equal(x, x[:, :1] + torch.arange(8))
    again, _ = get_batch(tokens, 64, 8, torch.Generator().manual_seed(3))
    assert torch.equal(x, again)


def test_every_window_can_be_drawn():
    tokens = torch.arange(12)
    x, y = get_batch(tokens, 2000, 8, torch.Generator().manual_seed(0))
    assert set(x[:, 0].tolist()) == {0, 1, 2, 3}
    assert y.max() == 11


def test_batches_are_those_of_get_batch():
    tokens, generator = torch.arange(100), torch.Generator().manual_seed(3)
    batches = Batches(tokens, 4, 8, seed=3)
    for _ in range(3):
        for ours, theirs in zip(batches.draw(), get_batch(tokens, 4, 8, generator), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 7, 9])
def test_the_ranks_together_read_what_one_process_reads(world):
    """Row i of the whole batch is read by rank i % world; also with more ranks than rows."""
    tokens = torch.arange(1000)
    alone = Batches(tokens, 7, 8, seed=1)
    ranks = [Batches(tokens, 7, 8, seed=1, rank=rank, world=world) for rank in range(world)]
    for _ in range(3):
        whole, shares = alone.draw(), [batches.draw() for batches in ranks]
        for rank, share in enumerate(shares):
            for part, all_rows in zip(share, whole, strict=True):
                assert part.shape == (len(range(rank, 7, world)), 8)
                assert torch.equal(part, all_rows[rank::world])
        rows = [shares[i % world][0][i // world] for i in range(7)]
        assert torch.equal(torch.stack(rows), whole[0])
    assert all(torch.equal(batches.state(), alone.state()) for batches in ranks)


def test_batches_go_on_from_a_saved_state():
    tokens = torch.arange(1000)
    batches = Batches(tokens, 4, 8, seed=1)
    batches.draw()
    state = batches.state()
    assert (state.dtype, state.device.type) == (torch.uint8, "cpu")
    following = [batches.draw()[0] for _ in range(2)]
    other = Batches(tokens, 4, 8, seed=2)
    assert not torch.equal(other.draw()[0], following[0])
    other.restore(state)
    assert all(torch.equal(other.draw()[0], x) for x in following)


def test_splits_that_cannot_be_trained_on():
    with pytest.raises(ConfigError, match="train split has 8 tokens.*block_size=8.*need 9"):
        check_tokens(torch.arange(8), 8, 65, "train")
    with pytest.raises(ConfigError, match="token 65, but the model's vocab_size is 65"):
        check_tokens(torch.tensor([0, 65, 1]), 2, 65, "validation")


def test_sixteen_bits_hold_every_id():
    tokens = torch.tensor([0, 1, 32767, 32768, 65535]).to(torch.uint16)
    assert take(tokens, torch.arange(5)).tolist() == [0, 1, 32767, 32768, 65535]


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint16])
def test_batches_are_the_same_on_cuda(dtype):
    tokens = torch.randint(50_000, (1000,)).to(dtype)
    x, y = get_batch(tokens, 4, 8, torch.Generator().manual_seed(0))
    a, b = get_batch(tokens.cuda(), 4, 8, torch.Generator().manual_seed(0))
    assert torch.equal(x, a.cpu())
    assert torch.equal(y, b.cpu())
    for rank in range(5):  # the last one has no row
        plain, there = (Batches(t, 4, 8, 0, rank, world=5) for t in (tokens, tokens.cuda()))
        assert torch.equal(plain.draw()[0], there.draw()[0].cpu())
