"""Accuracies of several seeds, and how figures are written."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracies (per cent) of runs that differ in their seed."""

    per_seed: list[float]
    mean: float
    spread: float  # sample standard deviation, 0 for a single seed


def accuracy(per_seed: Sequence[float]) -> Accuracy:
    """The mean and the spread of one or more accuracies (per cent)."""
    values = [float(value) for value in per_seed]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return Accuracy(values, statistics.fmean(values), spread)


def percent(value: float) -> str:
    """A percentage in words.

    >>> percent(12.345)
    '12.3 %'
    """
    return f'{value:.1f} %'
