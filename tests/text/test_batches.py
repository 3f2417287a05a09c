import pytest
import torch

from tinygpt.errors import ConfigError
from tinygpt.text import check_tokens, get_batch, take


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
