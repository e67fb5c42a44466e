"""Training loops that continue in the middle of an epoch as if they had never stopped.

The random numbers of a sample are seeded from (run seed, epoch, its place in the order of that
epoch), whichever worker or rank loads it; EpochSeedHook seeds those of the model from (run seed,
iteration, rank). So only the iteration has to be restored, and samples that were trained on before
are skipped without being loaded.
"""

import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_dist_info
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader, Dataset, Sampler

from beitv2_mm.datasets.seeding import SAMPLE, seed_generators
from beitv2_mm.engine.config_checks import explain_batch_of_one
from beitv2_mm.engine.hooks.checkpoint import release_signals
from beitv2_mm.engine.out_of_memory import explain_out_of_memory
from beitv2_mm.registry import LOOPS

Draw = tuple[int, tuple[int, ...]]  # the index of a sample and the numbers of its seed


class _SeededSampler(Sampler):
    """The indices of another sampler from ``start`` on, each with the numbers of its seed."""

    def __init__(self, sampler: Any, seed: int) -> None:
        self.sampler = sampler
        self.seed = seed
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def set_seed(self, seed: int) -> None:
        """Takes over the seed of the checkpoint that a run resumes from, which is known late."""
        if getattr(self.sampler, 'seed', None) == self.seed:
            self.sampler.seed = seed
        self.seed = seed

    def __iter__(self) -> Iterator[Draw]:
        rank, ranks = get_dist_info()
        for i, index in enumerate(self.sampler):
            if i >= self.start:
                # mmengine's samplers give rank r the entries r, r + ranks, ... of the order
                yield index, (self.seed, self.epoch, i * ranks + rank, SAMPLE)


class _SeededDataset(Dataset):
    """A data set that seeds all generators before it loads a sample of the wrapped one."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> Any:
        index, numbers = draw
        seed_generators(*numbers)
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        # `dataset` is missing while self is copied, and __getitems__ would bypass the seeds
        if name == 'dataset' or name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.dataset, name)


def _start_worker(init: Callable[[int], None] | None, worker: int) -> None:
    """Ignores Ctrl-C, which a terminal also sends to workers: training needs them until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if init is not None:
        init(worker)


class ResumableLoader(DataLoader):
    """A data loader that can skip its first batches without loading them.

    Every sample has its own seed, so the data are the same whether workers live on
    (``persistent_workers=True``) or are started for every epoch.

    Args:
        loader: the loader that is replaced.
        seed: the seed of the run.
    """

    def __init__(self, loader: DataLoader, seed: int) -> None:
        if loader.batch_size is None:
            raise ValueError(
                'A training loop that resumes within an epoch needs batch_size in '
                'train_dataloader: a batch_sampler cannot be continued.'
            )
        super().__init__(
            _SeededDataset(loader.dataset),
            batch_size=loader.batch_size,
            sampler=_SeededSampler(loader.sampler, seed),
            drop_last=loader.drop_last,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=partial(_start_worker, loader.worker_init_fn),
            multiprocessing_context=loader.multiprocessing_context,
            generator=loader.generator,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )
        self.dropped = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from (None for _ in range(self.dropped))
        yield from super().__iter__()

    def skip(self, batches: int, drop: bool = False) -> None:
        """Skips ``batches`` in the next pass; with ``drop``, yields None in place of each."""
        self.sampler.start = batches * self.batch_size
        self.dropped = batches if drop else 0


def _without_idle_workers(dataloader: DataLoader | dict) -> DataLoader | dict:
    """Unsets ``persistent_workers`` for ``num_workers=0``, a combination that PyTorch refuses."""
    if isinstance(dataloader, dict) and not dataloader.get('num_workers'):
        return {**dataloader, 'persistent_workers': False}
    return dataloader


class _ExplainingLoop(BaseLoop):
    """Turns errors of PyTorch into advice; however the training ends, its workers and its hold on
    the signals end with it."""

    dataloader: Any

    def run(self) -> Any:
        try:
            return super().run()
        finally:
            release_signals(self.runner)
            # PyTorch waits five seconds for each worker that only the garbage collector ends.
            self.dataloader._iterator = self.dataloader_iterator = None

    def run_iter(self, *args: Any, **kwargs: Any) -> None:
        with explain_out_of_memory(self.runner), explain_batch_of_one(self.runner):
            super().run_iter(*args, **kwargs)


@LOOPS.register_module()
class ResumableEpochBasedTrainLoop(_ExplainingLoop, EpochBasedTrainLoop):
    """mmengine's loop, which continues after the iteration of its checkpoint, where mmengine would
    repeat the epoch."""

    def __init__(
        self, runner: Runner, dataloader: DataLoader | dict, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(runner, _without_idle_workers(dataloader), *args, **kwargs)
        self.dataloader = ResumableLoader(self.dataloader, runner.seed)

    def run(self) -> Any:
        self.dataloader.sampler.set_seed(self.runner.seed)
        return super().run()

    def run_epoch(self) -> None:
        """Trains one epoch, or the rest of it."""
        done = self._iter - self._epoch * len(self.dataloader)
        if not 0 <= done <= len(self.dataloader):
            self.runner.logger.warning(
                f'Epoch {self._epoch + 1} starts at iteration {self._iter}, but with '
                f'{len(self.dataloader)} iterations per epoch it should start at '
                f'{self._epoch * len(self.dataloader)}: the checkpoint comes from a run with '
                f'another batch size, number of processes or data set. The whole epoch is trained.'
            )
            done = 0
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self.dataloader.skip(done)
        for idx, data_batch in enumerate(self.dataloader, done):
            self.run_iter(idx, data_batch)
        self.dataloader.skip(0)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class ResumableIterBasedTrainLoop(_ExplainingLoop, IterBasedTrainLoop):
    """mmengine's loop, which with an InfiniteSampler does not load finished batches again.

    With other samplers, these batches are loaded and dropped; the data that follow are the same.
    """

    def __init__(
        self, runner: Runner, dataloader: DataLoader | dict, *args: Any, **kwargs: Any
    ) -> None:
        # mmengine's __init__ starts an iterator over the loader, so it is replaced before.
        BaseLoop.__init__(self, runner, _without_idle_workers(dataloader))
        super().__init__(runner, ResumableLoader(self.dataloader, runner.seed), *args, **kwargs)

    def run(self) -> Any:
        sampler = self.dataloader.sampler
        sampler.set_seed(self.runner.seed)
        if isinstance(sampler.sampler, InfiniteSampler):
            self.dataloader.skip(self._iter, drop=True)
        return super().run()
