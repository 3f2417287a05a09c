"""The study's results in README, written from its tables: python -m tests.study_table."""

import re

from tinygpt.files import ROOT, write_text
from tinygpt.study import STUDIES, open_study, summary, verdicts

README = ROOT / "README.md"
BLOCK = re.compile(r"(<!-- study -->\n).*?(<!-- end of study -->)", re.DOTALL)


def results() -> str:
    """The arms as a table, and the verdicts as a list."""
    study = open_study(STUDIES["notebook"], ROOT / "checkpoints" / "study")
    runs, ms = study.runs(), study.ms()
    lines = [
        "| model | active parameters | all parameters | learning rate | updates | seconds "
        "| validation loss |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in study.arms:
        own = runs[runs["arm"] == arm.name]
        if own.empty:
            continue
        run, losses = own.iloc[0], own["best_val_loss"]
        seconds = run["updates"] * ms[arm.name] / 1e3
        lines.append(
            f"| {arm.words} | {run['active_parameters']:,} | {run['total_parameters']:,} "
            f"| x {run['lr_factor']:g} | {run['updates']:,} | {seconds:.0f} "
            f"| {losses.mean():.3f} ± {losses.std():.3f} ({len(losses)}) |"
        )
    found = verdicts(study)
    lines += ["", *(f"- {verdict.words}" for verdict in found)]
    lines += [f"- **{said}**" for said in summary(found)]
    return "\n".join(lines) + "\n"


def written() -> str:
    """README as it has to be."""
    return BLOCK.sub(lambda m: m[1] + results() + m[2], README.read_text(encoding="utf-8"))


if __name__ == "__main__":
    write_text(README, written())
