"""Random states that follow from (seed, epoch, rank) alone, so that a resumed run repeats them."""

from functools import partial

from mmengine.dataset import worker_init_fn as default_worker_init_fn
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from beitv2_mm.datasets.seeding import seed_generators
from beitv2_mm.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds every generator of the main process at each start of an epoch.

    The workers of the data loader, started after that, get their seeds from it
    (``worker_init_fn=dict(type=epoch_worker_init)``, ``persistent_workers=False``): masks and
    crops differ in every worker, epoch and rank, and a run resumed at an epoch equals one that
    was not interrupted.

    In an iteration-based loop mmengine starts the workers before training and, on resume, draws
    and drops the batches already seen, so the data repeat by themselves if the sampler is an
    InfiniteSampler. There the hook seeds PyTorch (drop path, dropout) at every iteration; NumPy
    and ``random`` are left to the data.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Warns about loaders that undo what this hook is for."""
        loader = runner.train_loop.dataloader
        if isinstance(loader, DataLoader) and loader.num_workers:
            problem = _loader_problem(loader, isinstance(runner.train_loop, IterBasedTrainLoop))
            if problem:
                runner.logger.warning(problem)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seeds ``random``, NumPy and PyTorch."""
        seed_generators(runner.seed, runner.epoch, get_rank())

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Seeds PyTorch in an iteration-based loop."""
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            seed_generators(runner.seed, runner.iter, get_rank(), torch_only=True)


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
