"""What runs in the processes that fault_run.py torments: tools/train.py, and two hooks."""

import gc
import json
import os
import random
import runpy
import shutil
import signal
import sys
from functools import partialmethod
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import barrier, get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

ROOT = Path(__file__).parents[2]
VANISHING, DAMAGED, EMPTY = range(3)  # of the sorted images


class StepLog(Hook):
    """Appends [start, iteration, loss] of each iteration to ``steps<rank>.jsonl``."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def before_train(self, runner: Runner) -> None:
        self.file = (self.folder / f'steps{get_rank()}.jsonl').open('a', buffering=1)
        self.file.write(json.dumps(['start', runner.iter, None]) + '\n')

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        assert isinstance(outputs, dict)
        self.file.write(json.dumps(['step', runner.iter, float(outputs['loss'])]) + '\n')


class BreakImages(Hook):
    """Once all processes have listed the images, one vanishes, one is garbage, one is empty."""

    def __init__(self, folder: str) -> None:
        self.files = sorted(Path(folder).rglob('*.png'))

    def before_train(self, runner: Runner) -> None:
        barrier()
        if get_rank() == 0:
            self.files[VANISHING].unlink()
            self.files[DAMAGED].write_bytes(b'\x89PNG garbage')
            self.files[EMPTY].write_bytes(b'')
        barrier()


def repair(good: Path, images: Path) -> None:
    """All files are there when a process lists them, in each of its lives."""
    for file in good.rglob('*.png'):
        copy = images / file.relative_to(good)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            temporary = copy.with_suffix(f'.{os.getpid()}')
            shutil.copy(file, temporary)
            temporary.replace(copy)


def fsync_or_die(token: Path) -> None:
    """The file ``token`` lets the next process die that has written a checkpoint, before or after
    the bytes are on the disk: where a kill would do harm."""
    fsync = os.fsync

    def wrapped(file: int) -> None:
        if random.random() < 0.5:
            fsync(file)
        try:
            token.unlink()
        except FileNotFoundError:
            fsync(file)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = wrapped


def work(config: str, folder: str, good: str) -> None:
    """Entry point of a process that the elastic agent starts."""
    gc.freeze()  # every data set collects garbage, among all that was imported
    rank = os.environ['RANK']
    torch.set_num_threads(1)
    repair(Path(good), Path(folder, 'images'))
    fsync_or_die(Path(folder, 'die_writing'))
    Path(folder, f'pid{rank}').write_text(str(os.getpid()))
    life = os.environ['TORCHELASTIC_RESTART_COUNT']
    log = os.open(Path(folder, f'rank{rank}.{life}.log'), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # otherwise half of the time goes into the looks of the text that each checkpoint has of it
    Config.__init__ = partialmethod(Config.__init__, format_python_code=False)
    sys.argv = ['train.py', config, '--launcher', 'pytorch', '--resume']
    sys.argv += ['--work-dir', f'{folder}/work']
    runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')
