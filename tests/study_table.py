"""The studies' results in README, written from their tables: python -m tests.study_table."""

import re

from tinygpt.files import ROOT, write_text
from tinygpt.study import STUDIES, Arm, Study, open_study, summary, verdicts

README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- study (\w+) -->\n).*?(<!-- end of study -->)", re.DOTALL)
HEAD = """\
| model | active parameters | all parameters | learning rate | updates | seconds | validation loss |
|---|---|---|---|---|---|---|
"""


def results(name: str) -> str:
    """The arms as a table, where experts win, and below, folded, each comparison."""
    study = open_study(STUDIES[name], ROOT / "checkpoints" / "study")
    made = set(study.runs()["arm"])
    found = verdicts(study)
    parts = [
        HEAD + "\n".join(_row(study, arm) for arm in study.arms if arm.name in made),
        "\n".join(f"- **{said}**" for said in summary(found)),
        f"<details><summary>The {len(found)} comparisons, one by one</summary>",
        "\n".join(f"- {verdict.words}" for verdict in found),
        "</details>\n",
    ]
    return "\n\n".join(part for part in parts if part)


def _row(study: Study, arm: Arm) -> str:
    runs = study.runs()
    own = runs[runs["arm"] == arm.name]
    run, losses = own.iloc[0], own["best_val_loss"]
    seconds = run["updates"] * study.ms()[arm.name] / 1e3
    return (
        f"| {arm.words} | {run['active_parameters']:,} | {run['total_parameters']:,} "
        f"| x {run['lr_factor']:g} | {run['updates']:,} | {seconds:,.0f} "
        f"| {losses.mean():.3f} ± {losses.std():.3f} ({len(losses)}) |"
    )


def written() -> str:
    """README as it has to be."""
    text = README.read_text(encoding="utf-8")
    return BLOCK.sub(lambda m: m[1] + results(m[2]) + m[3], text)


if __name__ == "__main__":
    write_text(README, written())
