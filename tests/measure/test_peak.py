import torch
from torch import nn

from tinygpt.measure import peak_bytes
from tinygpt.measure.peak import Live

N = 1000  # numbers of four bytes


def test_what_was_there_before_is_not_counted_nor_are_its_views():
    before = torch.ones(N)
    with Live() as live:
        before.view(10, 100).t().add_(1)
        assert live.peak == 0
        before.view(10, 100) + 1
    assert live.peak == 4 * N
    assert live.now == 0


def test_the_peak_is_of_what_is_alive_at_one_time():
    with Live() as live:
        for _ in range(5):
            kept = torch.ones(N)
            kept.view(10, 100)[3] *= 2
        two = kept, kept * 2
        del kept, two
        torch.ones(1)
    assert live.peak == 2 * 4 * N
    assert live.now == 0


def test_a_backward_pass_counts_with_its_gradients():
    """Of a linear layer: its output, then beside that one gradient as large as the weights."""
    layer, x = nn.Linear(N, 1, bias=False), torch.ones(1, N)
    assert peak_bytes(lambda: layer(x), layer) == 4
    layer.zero_grad()
    assert 4 * N < peak_bytes(lambda: layer(x).sum().backward(), layer) < 4 * N + 100
