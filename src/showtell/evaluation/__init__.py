"""Evaluates captions against references: scores with confidence intervals, paired tests, tables and a report page.

    evaluation = evaluate_files(Path("candidates.json"), Path("references.json"))
    print_evaluation(evaluation)
    write_report(evaluation, Path("report"))

`evaluate` and `compare` take captions in memory.
"""

from showtell.evaluation.captions import Pairs, References, join, read_candidates, read_references
from showtell.evaluation.evaluate import Comparison, Evaluation, compare, compare_files, evaluate, evaluate_files
from showtell.evaluation.report import prepare, write_report
from showtell.evaluation.significance import Difference, Interval
from showtell.evaluation.table import print_comparison, print_evaluation, print_evaluations

__all__ = [
    "Comparison",
    "Difference",
    "Evaluation",
    "Interval",
    "Pairs",
    "References",
    "compare",
    "compare_files",
    "evaluate",
    "evaluate_files",
    "join",
    "prepare",
    "print_comparison",
    "print_evaluation",
    "print_evaluations",
    "read_candidates",
    "read_references",
    "write_report",
]
