"""Reports progress by the clock, so that a slow step or a long validation does not look hung."""

import json
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner

from beitv2_mm.checkpoint.atomic import atomic
from beitv2_mm.registry import HOOKS

PROGRESS = 'progress.json'
EVERY = 2.0  # seconds between two versions of that file


@HOOKS.register_module()
class ProgressHook(Hook):
    """Logs step and remaining time when `LoggerHook`, which counts steps, has logged nothing for
    ``seconds``. The main process also writes both to ``work_dir/progress.json`` (mode, step, total,
    seconds_left), for programs that wait for the run.

    It reads no losses, so it never waits for the device.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self.interval = 0  # steps between lines of LoggerHook
        self.begin = self.last = self.written = 0.0
        self.first = 0

    def before_run(self, runner: Runner) -> None:
        """Finds the interval of LoggerHook."""
        for hook in runner.hooks:
            if isinstance(hook, LoggerHook):
                self.interval = hook.interval

    def before_train(self, runner: Runner) -> None:
        """Starts the clock of the training."""
        self._start(runner.iter)

    def before_val_epoch(self, runner: Runner) -> None:
        """Starts the clock of a validation or test."""
        self._start(0)

    before_test_epoch = before_val_epoch

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Starts the clock of the training again."""
        self._start(runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Reports a step of the training."""
        self._step(runner, 'train', batch_idx, runner.iter, runner.max_iters)

    def after_val_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Reports a batch of the validation."""
        self._step(runner, 'val', batch_idx, batch_idx, len(runner.val_dataloader))

    def after_test_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Reports a batch of the test."""
        self._step(runner, 'test', batch_idx, batch_idx, len(runner.test_dataloader))

    def _start(self, first: int) -> None:
        self.begin = self.last = time.monotonic()
        self.first = first

    def _step(self, runner: Runner, mode: str, batch_idx: int, step: int, total: int) -> None:
        now, done = time.monotonic(), step + 1
        left = (now - self.begin) / (done - self.first) * (total - done)
        if now - self.written >= EVERY and is_main_process():
            self.written = now
            state = dict(mode=mode, step=done, total=total, seconds_left=round(left, 1))
            # A full disk is no reason to end the training.
            with suppress(OSError), atomic(Path(runner.work_dir, PROGRESS)) as file:
                file.write_text(json.dumps(state))
        if self.every_n_inner_iters(batch_idx, self.interval):
            self.last = now  # LoggerHook writes its own line
        elif now - self.last >= self.seconds:
            self.last = now
            eta = timedelta(seconds=int(left))
            runner.logger.info(f'Iter({mode}) [{done}/{total}]  eta: {eta}')
