"""Images a second that a data loader delivers, compared with those that a training step takes."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from mmengine.dataset import default_collate
from rich.table import Table
from torch.utils.data import DataLoader, Dataset, RandomSampler

from beitv2_mm.benchmark.data import Pipeline
from beitv2_mm.benchmark.pretrain import Pretrain
from beitv2_mm.benchmark.products import now
from beitv2_mm.benchmark.work import OURS, Settings


@dataclass(frozen=True)
class Feed:
    """Rates in images a second."""

    loaders: dict[int, float]  # number of workers -> delivered by all of them
    model: float  # taken by steps of masked image modelling
    batch_size: int

    def table(self) -> Table:
        """A line for each number of workers, with the share of the demand that they meet."""
        result = Table('images a second', title=f'feeding batches of {self.batch_size}')
        for title in ('delivered', 'taken by the model', 'met'):
            result.add_column(title, justify='right')
        for workers, rate in self.loaders.items():
            label = f'{workers} worker{"s" if workers > 1 else ""}'
            result.add_row(label, f'{rate:.1f}', f'{self.model:.1f}', f'{rate / self.model:.0%}')
        fewest = min(self.loaders)
        needed = math.ceil(self.model / (self.loaders[fewest] / fewest))
        result.caption = f'workers that feed the model, at the rate of {fewest}: {needed}'
        return result


def measure_feed(settings: Settings, progress: Callable[[], object] = lambda: None) -> Feed:
    """Measures the loader with each number of workers, then a training step of the model.

    Args:
        settings: the options of the benchmark.
        progress: called after each of `count_feed_steps` measurements.
    """
    size = settings.sizes(224)[0]
    batch = settings.batch_size or 4
    dataset = Pipeline(settings, size).dataset()
    loaders = {}
    for workers in settings.workers:
        loaders[workers] = _loader_rate(dataset, workers, batch, settings.rounds)
        progress()
    torch.set_num_threads(settings.threads)
    step = Pretrain(settings, size, batch, settings.num_codes).build(OURS)
    rate = batch / _median_seconds(step.run, settings.rounds, settings.device)
    progress()
    return Feed(loaders, rate, batch)


def count_feed_steps(settings: Settings) -> int:
    """How often `measure_feed` reports progress."""
    return len(settings.workers) + 1


def _loader_rate(dataset: Dataset, workers: int, batch: int, rounds: int) -> float:
    """Images a second; the workers start in the first epoch, which is not counted."""
    count = batch * max(2 * workers, 64 // batch)
    loader = DataLoader(
        dataset,
        batch,
        sampler=RandomSampler(dataset, replacement=True, num_samples=count),
        num_workers=workers,
        collate_fn=default_collate,
        persistent_workers=True,
        multiprocessing_context='fork',  # the configs' (mp_start_method)
    )

    def epoch() -> None:
        for _ in loader:
            pass

    return count / _median_seconds(epoch, rounds, 'cpu')


def _median_seconds(run: Callable[[], object], rounds: int, device: str) -> float:
    """The median time of some runs, after a first one to warm up."""
    seconds = []
    for _ in range(1 + rounds):
        start = now(device)
        run()
        seconds.append(now(device) - start)
    return statistics.median(seconds[1:])
