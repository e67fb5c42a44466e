"""Random states of the model that follow from seed, iteration and rank, so that a resumed run
repeats them."""

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from beitv2_mm.datasets.seeding import MODEL, seed_generators
from beitv2_mm.engine.loops import ResumableLoader
from beitv2_mm.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds every generator of the main process before each iteration; the name is from a time when
    each epoch was enough, and configs keep it.

    Drop path, dropout, mixup and whatever else the model draws then follow from (seed, iteration,
    rank): a resumed run repeats them, although no random state is saved. The random numbers of the
    samples are seeded by the training loop, see :class:`ResumableEpochBasedTrainLoop`.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Warns about a training loop that does not seed the samples."""
        loader = runner.train_loop.dataloader
        if isinstance(loader, DataLoader) and not isinstance(loader, ResumableLoader):
            runner.logger.warning(
                f'{type(runner.train_loop).__name__} does not seed the samples: every image may '
                'get the same masks and crops in each epoch, and a resumed run sees other ones. '
                'Set train_cfg.type to ResumableEpochBasedTrainLoop or ResumableIterBasedTrainLoop.'
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Seeds ``random``, NumPy and PyTorch, whatever the data loader or an evaluation drew."""
        seed_generators(runner.seed, runner.iter, get_rank(), MODEL)
