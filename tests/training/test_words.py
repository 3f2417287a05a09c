from dataclasses import replace

from tinygpt import TrainConfig
from tinygpt.training import Run
from tinygpt.training.words import resumed, ruined, stopped

CONFIG = TrainConfig(max_steps=30)


def test_what_ruined_a_training_names_the_last_checkpoint_and_the_way_out(run):
    told = str(ruined("no finite loss", Run(run), CONFIG))
    assert told.startswith(f"no finite loss; the last checkpoint is {run / 'step_0000030'}. Lower")
    assert f"lr={CONFIG.lr}" in told
    assert "checkpoint" not in str(ruined("no finite loss", None, CONFIG))


def test_where_a_training_stopped(run):
    nothing = "stopped after step 30 (no out_dir: nothing saved)"
    assert stopped(30, None, useless=False) == nothing
    assert stopped(30, Run(run), useless=False).endswith(f"Trainer.resume({str(run)!r})")


def test_what_changes_when_a_run_goes_on():
    longer = replace(CONFIG, max_steps=40)
    told = resumed(30, 40, CONFIG, longer, "; so it goes")
    assert told == "from step 30 on: max_steps 30 -> 40; so it goes"
    assert "a larger max_steps" in resumed(30, 30, CONFIG, CONFIG, "")
    assert resumed(20, 30, CONFIG, CONFIG, "") is None
