"""Work -> rows. The implementations take turns, and every round begins with another one."""

import gc
import logging
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from mmengine.model import BaseModel
from torch import nn

from beitv2_mm.benchmark.products import Products, now
from beitv2_mm.benchmark.work import OURS, Step, Work
from beitv2_mm.engine.hooks.compile import compile_options, compile_parts


@dataclass(frozen=True)
class Row:
    """The measurements of one implementation."""

    work: str
    implementation: str
    median_seconds: float  # of one run, or of an image
    peak_memory_mb: float | None  # on top of weights, inputs and the optimizer's state
    share_of_limit: float | None  # time of its matrix products / time of the run, median
    speed_ratio: float  # its time / this package's time
    memory_ratio: float | None  # this package's memory / its memory


def measure(work: Work, progress: Callable[[], object] = lambda: None) -> list[Row]:
    """Rows of one piece of work, this package's first.

    Every implementation runs once to compare its results and to record its matrix products, once or
    more to warm up, once to measure its memory, and then once in every round. Its matrix products
    are timed right before and after each of these timed runs.

    Args:
        work: the work to compare.
        progress: called after each of `count_steps` steps.

    Raises:
        NotTheSameError: results differ by more than rounding.
    """
    names = work.available()
    torch.set_num_threads(work.settings.threads)
    steps = _build(work, names)
    products = _compare(work, steps)
    progress()
    _warm_up(work, steps)
    progress()
    memory = {}
    for name, step in steps.items():
        memory[name] = work.peak_memory(name, step)
        progress()
    seconds, shares = _take_turns(work, steps, products, progress)
    return [
        Row(
            work.name,
            name,
            seconds[name] / steps[name].units,
            memory[name],
            shares[name] or None,
            seconds[name] / seconds[OURS],
            _ratio(memory[OURS], memory[name]),
        )
        for name in names
    ]


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


def _compare(work: Work, steps: dict[str, Step]) -> dict[str, Products]:
    """The products of each implementation, after a check that all results agree."""
    products = {}
    for name, step in steps.items():
        torch.manual_seed(0)
        products[name] = Products(step.run, work.settings.device)
    ours = products[OURS].result
    for name in steps:
        if name != OURS:
            work.compare(ours, products[name].result)
        products[name].result = None
    return products


def _warm_up(work: Work, steps: dict[str, Step]) -> None:
    for name, step in steps.items():
        if work.settings.compile and step.module is not None:
            _compile(name, step.module, work.settings.device)
        for _ in range(3 if work.settings.compile else 1):
            step.run()


def _compile(name: str, module: nn.Module, device: str) -> None:
    """Compiles this package's modules as `CompileHook` does, and those of peers as a whole.

    A failure is an error: otherwise an uncompiled run would be timed.
    """
    if name == OURS and isinstance(module, BaseModel):
        compile_parts(module, strict=True)
    else:
        module.compile(**compile_options(device, {}))


def _take_turns(
    work: Work,
    steps: dict[str, Step],
    products: dict[str, Products],
    progress: Callable[[], object],
) -> tuple[dict[str, float], dict[str, float]]:
    """The median time of each implementation, and the median share that its matrix products take.

    On a shared machine the speed changes from second to second, so a run is only compared with the
    products that are timed right before and after it.
    """
    order, device = list(steps), work.settings.device
    seconds: dict[str, list[float]] = {name: [] for name in order}
    shares: dict[str, list[float]] = {name: [] for name in order}
    for number in range(work.settings.rounds):
        first = number % len(order)
        for name in order[first:] + order[:first]:
            gc.collect()
            before = products[name].seconds()
            start = now(device)
            steps[name].run()
            seconds[name].append(now(device) - start)
            after = products[name].seconds()
            shares[name].append((before + after) / 2 / seconds[name][-1])
        progress()
    medians = [
        {name: statistics.median(values) for name, values in found.items()}
        for found in (seconds, shares)
    ]
    return medians[0], medians[1]


def quiet() -> None:
    """Silences warnings and log lines, in which libraries tell how they initialise."""
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
