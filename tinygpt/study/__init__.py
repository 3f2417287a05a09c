"""The honest comparison: arms that differ in one thing, seeds, and what follows from the tables."""

from .arms import Arm, Comparison, Design
from .experts import ARMS, COMPARISONS
from .own import compare_runs
from .plan import Trial, missing, updates
from .protocol import Study, open_study
from .records import Records
from .report import report
from .studies import STUDIES
from .verdict import Verdict, differences, judge, losses_of, summary, verdicts
from .work import carry_out

__all__ = [
    "ARMS",
    "COMPARISONS",
    "STUDIES",
    "Arm",
    "Comparison",
    "Design",
    "Records",
    "Study",
    "Trial",
    "Verdict",
    "carry_out",
    "compare_runs",
    "differences",
    "judge",
    "losses_of",
    "missing",
    "open_study",
    "report",
    "summary",
    "updates",
    "verdicts",
]
