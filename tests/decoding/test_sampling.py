import torch

from tinygpt.decoding import draw, filter_top_k, noise

from ..tools import random_logits


def test_the_draw_equals_torch_multinomial_bit_for_bit():
    logits = random_logits(65, 5)
    ours, theirs = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    for row in logits[:300]:
        expected = torch.multinomial(row.softmax(0), 1, generator=theirs)
        assert draw(row[None], [ours]) == expected


def test_noise_for_many_draws_is_the_noise_of_each():
    def generators():
        return [torch.Generator().manual_seed(i) for i in range(3)]

    ours, one_by_one = list(noise(generators(), 65, 300, torch.device("cpu"))), generators()
    assert len(ours) == 300  # more than one block of them
    for block in ours:
        expected = [torch.empty(65).exponential_(generator=g) for g in one_by_one]
        assert torch.equal(block, torch.stack(expected))


def test_a_removed_token_is_never_drawn():
    logits = filter_top_k(torch.zeros(2000, 50), 3)
    generator = torch.Generator().manual_seed(0)
    assert draw(logits, [generator] * 2000).max() < 3
