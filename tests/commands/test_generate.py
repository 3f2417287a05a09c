"""The command: python -m tinygpt generate."""

import torch

from tinygpt import cli


def test_without_a_seed_the_text_is_another_each_time_and_with_one_the_same(capsys):
    """As in two new processes, whose global generators start alike."""
    texts = []
    for seed in ((), (), ("--seed", "3"), ("--seed", "3")):
        torch.manual_seed(0)
        assert cli.main(["generate", "laptop", "--max-new-tokens", "40", *seed]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] != texts[1]
    assert texts[2] == texts[3]
