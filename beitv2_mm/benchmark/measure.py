"""Work -> rows: implementations take turns, and the one that begins changes with every round."""

import gc
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from beitv2_mm.benchmark.work import OURS, Step, Work

PRODUCTS = 'matrix products'


@dataclass(frozen=True)
class Row:
    """What was measured of one implementation."""

    work: str
    implementation: str
    median_seconds: float | None  # of one run, or of an image; None where only memory is meant
    peak_memory_mb: float | None  # on top of weights, inputs and the optimizer's state
    share_of_limit: float | None  # time of plain matrix products of as many FLOPs / median_seconds
    speed_ratio: float | None = None  # its time / this package's time
    memory_ratio: float | None = None  # this package's memory / its memory


def measure(work: Work, progress: Callable[[], object] = lambda: None) -> list[Row]:
    """Rows of one piece of work, this package's first.

    Every implementation runs once to compare its results and count its FLOPs, once for its memory,
    once or more to warm up, then once in every round.

    Args:
        work: what is compared.
        progress: called after each of `count_steps` steps.

    Raises:
        NotTheSameError: results differ by more than rounding.
    """
    names = work.available()
    torch.set_num_threads(work.settings.threads)
    steps = _build(work, names)
    flops = _compare(work, steps)
    progress()
    memory = {}
    for name, step in steps.items():
        memory[name] = work.peak_memory(name, step)
        progress()
    _warm_up(work, steps)
    progress()
    runs = {name: step.run for name, step in steps.items()}
    products = work.products()
    if products:  # often enough for a time that can be compared
        once = sum(2 * m * k * n for m, k, n in products)
        products *= max(1, round(max(flops.values()) / once / 4))
        runs[PRODUCTS] = _plain_products(work, products)
        runs[PRODUCTS]()
    seconds = _take_turns(work, runs, progress)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    rate = sum(2 * m * k * n for m, k, n in products) / medians.get(PRODUCTS, 1.0)
    rows = []
    for name in names:
        limit = flops[name] / rate if rate else 0.0
        rows.append(
            Row(
                work.name,
                name,
                medians[name] / steps[name].units,
                memory[name],
                limit / medians[name] if limit else None,
                medians[name] / medians[OURS],
                _ratio(memory[OURS], memory[name]),
            )
        )
    return rows


def count_steps(work: Work) -> int:
    """How often `measure` reports progress."""
    return len(work.available()) + 2 + work.settings.rounds


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours and theirs else None


def _build(work: Work, names: list[str]) -> dict[str, Step]:
    steps = {}
    for name in names:
        torch.manual_seed(0)
        steps[name] = work.build(name)
    work.share_weights({name: step.module for name, step in steps.items()})
    return steps


def _compare(work: Work, steps: dict[str, Step]) -> dict[str, int]:
    """FLOPs of each implementation, after a check that all do the same."""
    results, flops = {}, {}
    for name, step in steps.items():
        torch.manual_seed(0)
        with FlopCounterMode(display=False) as counter:
            results[name] = step.run()
        flops[name] = counter.get_total_flops()
    for name, result in results.items():
        if name != OURS:
            work.compare(results[OURS], result)
    return flops


def _warm_up(work: Work, steps: dict[str, Step]) -> None:
    for step in steps.values():
        if work.settings.compile and step.module is not None:
            step.module.compile()
        for _ in range(3 if work.settings.compile else 1):
            step.run()


def _take_turns(
    work: Work, runs: dict[str, Callable[[], object]], progress: Callable[[], object]
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    for number in range(work.settings.rounds):
        for name in order[number % len(order) :] + order[: number % len(order)]:
            gc.collect()
            _synchronize(work)
            start = time.perf_counter()
            runs[name]()
            _synchronize(work)
            seconds[name].append(time.perf_counter() - start)
        progress()
    return seconds


def _synchronize(work: Work) -> None:
    if work.settings.device != 'cpu':
        torch.cuda.synchronize()


def _plain_products(work: Work, products: list[tuple[int, int, int]]) -> Callable[[], None]:
    options = dict(device=work.settings.device, dtype=work.settings.dtype)
    pairs = {
        (m, k, n): (torch.randn(m, k, **options), torch.randn(k, n, **options))  # type: ignore[call-overload]
        for m, k, n in products
    }

    def run() -> None:
        for product in products:
            torch.mm(*pairs[product])

    return run


def quiet() -> None:
    """Keeps the libraries' notes on how they initialise out of the terminal."""
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
