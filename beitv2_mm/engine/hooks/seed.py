"""Random states that depend only on seed, epoch or iteration, and rank, so a resumed run repeats
them."""

from functools import partial

from mmengine.dataset import worker_init_fn as default_worker_init_fn
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from beitv2_mm.datasets.seeding import MODEL, WORKERS, seed_generators
from beitv2_mm.engine.loops import ResumableLoader
from beitv2_mm.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds every generator of the main process at each epoch and each iteration.

    Drop path, dropout, mixup and what else the model draws so follow from (seed, iteration, rank):
    a resumed run repeats them without any state being saved. The samples' own random numbers
    are the loop's task, see :class:`ResumableEpochBasedTrainLoop`. Under mmengine's loop the
    workers of the data loader get their seeds from the one of the epoch
    (``worker_init_fn=dict(type=epoch_worker_init)``, ``persistent_workers=False``), so that a run
    resumed at an epoch, but not within one, equals one that was not interrupted.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Warns about loaders that undo what this hook is for."""
        loader = runner.train_loop.dataloader
        seeded = isinstance(loader, ResumableLoader)  # whatever its workers start from
        if isinstance(loader, DataLoader) and loader.num_workers and not seeded:
            problem = _loader_problem(loader, isinstance(runner.train_loop, IterBasedTrainLoop))
            if problem:
                runner.logger.warning(problem)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seeds ``random``, NumPy and PyTorch."""
        seed_generators(runner.seed, runner.epoch, get_rank(), WORKERS)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Seeds them again: what the data loader or an evaluation drew has no influence."""
        seed_generators(runner.seed, runner.iter, get_rank(), MODEL)


def _loader_problem(loader: DataLoader, endless: bool) -> str | None:
    init = loader.worker_init_fn
    default = isinstance(init, partial) and init.func is default_worker_init_fn
    if default and not loader.persistent_workers and not endless:
        return (
            "The training data loader uses mmengine's worker_init_fn, which gives its workers "
            'the same seeds in each epoch: every image gets the same masks and crops again and '
            'again. Set train_dataloader.worker_init_fn=dict(type=epoch_worker_init).'
        )
    if loader.persistent_workers and not endless:
        return (
            'The training data loader has persistent_workers=True: its workers are not seeded '
            'again at an epoch, so a resumed run sees other masks and crops than an '
            'uninterrupted one. Set train_dataloader.persistent_workers=False.'
        )
    return None
