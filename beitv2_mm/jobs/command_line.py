"""Options that the command lines share, without PyTorch, so that ``--help`` answers at once.

A tool reads its arguments first and imports what it works with after that.
"""

import gc
import os
import signal
import sys
from argparse import Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logging import Logger

    import torch


def run_job(name: str, job: Callable[['Logger'], Path], outcome: str = 'report') -> None:
    """Runs a job and logs the path of its outcome. Ctrl-C, SIGTERM and expected errors end the
    process with a message instead of a traceback."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance(name, logger_name=name)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        path = job(logger)
    except KeyboardInterrupt:
        logger.warning('interrupted: run the same command again to continue')
        sys.exit(130)
    except (ImportError, OSError, RuntimeError, ValueError, KeyError) as error:
        sys.exit(f'{name}: {error}')
    logger.info(f'{outcome}: {path.resolve()}')


def let_threads_sleep() -> None:
    """Lets waiting threads of PyTorch sleep soon; call it before PyTorch is imported.

    Threads that spin while they wait make steps three to ten times as long when other programs use
    the cores as well; threads that sleep at once make steps of a small network half as long again,
    since every operation has to wake them. GCC's OpenMP can do both: it spins for a few
    microseconds, then sleeps. The user's own OMP_WAIT_POLICY or GOMP_SPINCOUNT stays.
    """
    if not {'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'} & os.environ.keys():
        os.environ.update(OMP_WAIT_POLICY='PASSIVE', GOMP_SPINCOUNT='10000')


@contextmanager
def quick_imports() -> Iterator[None]:
    """Imports inside without garbage collection, and leaves what they made out of all later ones.

    PyTorch and the mm packages make objects by the hundred thousand, which live as long as the
    process. Collections during the imports look at all of them many times over, and each data set
    of mmengine collects once more.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


class Overrides(Action):
    """mmengine's DictAction; what it cannot parse becomes an error of the parser."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option: Any = None
    ) -> None:
        from mmengine.config import DictAction

        action = DictAction(self.option_strings, self.dest, nargs=self.nargs)
        try:
            action(parser, namespace, values, option)
        except (AssertionError, RecursionError, ValueError) as error:
            parser.error(f'--cfg-options takes KEY=VALUE with balanced brackets ({error})')


def add_common_arguments(parser: ArgumentParser) -> None:
    """Options of train.py and test.py, with the meaning that they have in every mm project."""
    parser.add_argument('--work-dir', help='where logs and checkpoints go (./work_dirs/CONFIG)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Overrides,
        metavar='KEY=VALUE',
        help='overrides of the config, e.g. train_cfg.max_epochs=5 model.init_cfg=None',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='who starts the processes',
    )
    parser.add_argument(
        '--verbose',
        action='store_true',
        help='also show the config, the environment and the hooks, which the log file always has',
    )


def add_tokenizer(parser: ArgumentParser) -> None:
    """Adds ``--tokenizer`` and ``--config``, see `beitv2_mm.apis.build_tokenizer`."""
    parser.add_argument(
        '--tokenizer', required=True, metavar='CKPT', help='file or URL: own, official, mmpretrain'
    )
    parser.add_argument(
        '--config', help="the tokenizer's config; not needed for published tokenizers"
    )


def add_device(parser: ArgumentParser) -> None:
    """Adds ``--device``; the default is the accelerator that mmengine would train on."""
    parser.add_argument(
        '--device',
        type=device,
        default='auto',
        help='where the model runs: auto is the accelerator, if there is one (%(default)s)',
    )


def device(name: str) -> 'torch.device':
    """The device that ``--device`` names.

    Raises:
        ArgumentTypeError: there is no such device here.
    """
    import torch

    if name == 'auto':
        from mmengine.device import get_device

        from beitv2_mm.compat.mmengine_ import has_accelerator

        name = get_device() if has_accelerator() else 'cpu'
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).split('\n')[0].rstrip('.')
        raise ArgumentTypeError(
            f'{name!r} cannot be used here ({reason}): give a device of this machine, '
            'such as --device cpu'
        ) from error
    return found
