"""Checkpoints that survive a kill, a full disk or a power failure, written during training."""

import os
import shutil
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from mmengine.dist import all_reduce, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.engine.errors import CheckpointWriteError
from beitv2_mm.engine.hooks.deferred import PREFIX, DeferredBackend
from beitv2_mm.engine.hooks.stop_signals import StopSignals
from beitv2_mm.registry import HOOKS


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's hook with atomic writes in a thread, which also saves by time and when stopped.

    Training waits while the checkpoint is copied to memory, but not while it is written. The file
    gets its name once it is complete and on the disk; then ``last_checkpoint`` names it, and only
    then the oldest checkpoint is removed. With gradient accumulation, a checkpoint waits for the
    next step of the optimizer, because it does not contain gradients.

    On SIGTERM, which schedulers send before they kill, and on Ctrl-C, all processes save after the
    current iteration and end with status 143 or 130 (see `StopSignals`).

    Args:
        minutes: save ``iter_<iterations>.pth`` when this much time has passed since the last
            checkpoint; None saves only every ``interval``.
        on_error: when a checkpoint cannot be written (because the disk is full, say), 'continue' to
            train, with an error in the log, or 'stop'. The last good checkpoint stays in any case.
        poll: iterations after which processes exchange whether it is time to save or to stop.
        kwargs: arguments of mmengine's CheckpointHook.
    """

    def __init__(
        self,
        *args: Any,
        minutes: float | None = None,
        on_error: Literal['continue', 'stop'] = 'continue',
        poll: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if on_error not in ('continue', 'stop'):
            raise ValueError(f"on_error is {on_error!r}; expected 'continue' or 'stop'.")
        self.minutes = minutes
        self.on_error = on_error
        self.poll = poll
        self._kept: list[str] = []
        self._due = False  # save at the next step of the optimizer
        self.signals = StopSignals()  # that this process has received
        self._stop = 0  # the signal that all processes have agreed on
        self._saved_iter = -1  # number of iterations in the last checkpoint
        self._thread = ThreadPoolExecutor(1, thread_name_prefix='checkpoint')
        self._writing: tuple[str, Future] | None = None

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        names = runner.message_hub.runtime_info.get('kept_checkpoints', [])
        self._kept = [name for name in names if Path(self.out_dir, name).exists()]
        self._saved_at = time.monotonic()
        if is_main_process():
            Path(self.out_dir).mkdir(parents=True, exist_ok=True)
            # a killed run leaves these, each as large as a checkpoint
            for unfinished in Path(self.out_dir).glob('.*.pth*.tmp'):
                _remove(unfinished)
        self.signals.listen()

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        super().after_train_iter(runner, *args, **kwargs)
        self._report(runner)
        if get_world_size() == 1 or self.every_n_train_iters(runner, self.poll):
            late = self.minutes is not None and (
                time.monotonic() - self._saved_at >= 60 * self.minutes
            )
            stop, due = _largest(self.signals.received, late)
            self._stop = self._stop or stop
            self._due |= bool(stop or due)
        if self._due and _has_stepped(runner):
            self._save_iteration(runner, runner.iter + 1)
        if self._stop and not self._due:
            self._end(runner, runner.iter + 1)

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        super().after_val_iter(runner, *args, **kwargs)
        # after a checkpoint, nothing is lost by stopping within the validation
        if self.signals.received and get_world_size() == 1 and self._saved_iter == runner.iter:
            self._stop = self.signals.received
            self._end(runner, runner.iter)

    def after_val_epoch(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        super().after_val_epoch(runner, *args, **kwargs)
        (self._stop,) = _largest(self.signals.received)
        if self._stop:
            if self._saved_iter != runner.iter and _has_stepped(runner):
                self._save_iteration(runner, runner.iter)
            self._end(runner, runner.iter)

    def _end(self, runner: Runner, step: int) -> None:
        self._wait(runner)
        saved = f'{self._kept[-1]} with --resume' if self._kept else 'the beginning: none was saved'
        runner.logger.warning(
            f'Stopped by {signal.Signals(self._stop).name} after iteration {step}; it continues '
            f'from {saved}.'
        )
        raise SystemExit(128 + self._stop)

    def after_train(self, runner: Runner) -> None:
        self._wait(runner)
        self.signals.release()
        super().after_train(runner)

    def _save_iteration(self, runner: Runner, step: int) -> None:
        self._save(runner, f'iter_{step}.pth', dict(epoch=runner.epoch, iter=step), False)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if _has_stepped(runner):
            self._save(runner, self.filename_tmpl.format(step), meta, self.by_epoch)
        else:
            self._due = True

    def _save(self, runner: Runner, name: str, meta: dict, by_epoch: bool) -> None:
        self._wait(runner)
        self._due = False
        self._saved_at = time.monotonic()
        self._saved_iter = meta['iter']
        self.last_ckpt = str(Path(self.out_dir, name))
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        kept = [*(other for other in self._kept if other != name), name]
        runner.message_hub.update_info('kept_checkpoints', kept)
        whole = _saves_one_file(runner)
        error: Exception | None = None
        try:
            runner.save_checkpoint(
                f'{PREFIX}{self.out_dir}' if whole else self.out_dir,
                name if whole else f'.{name}.tmp',
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=by_epoch,
                **self.args,
            )
        except (OSError, RuntimeError) as reason:  # files of other ranks, or PyTorch's writer
            if whole:
                raise
            error = reason
        failed = not whole and bool(_largest(error is not None)[0])
        if is_main_process():
            files, DeferredBackend.pending = DeferredBackend.pending, {}
            if failed:
                error = error or OSError('another process could not write its part')
                self._failed(runner, name, error)
            else:
                job = self._thread.submit(self._publish, name, kept, files, runner.work_dir)
                self._writing = name, job

    def _publish(self, name: str, kept: list[str], files: dict[Path, bytes], work_dir: str) -> None:
        """Writes and renames the checkpoint, points at it, then removes old ones; in the thread."""
        final = Path(self.out_dir, name)
        for path, content in files.items():
            write_atomic(path, content)
        temporary = final.with_name(f'.{name}.tmp')
        if temporary.exists():  # a folder with a file of each process
            for file in temporary.rglob('*'):
                if file.is_file():
                    with file.open('rb') as opened:
                        os.fsync(opened.fileno())
            _remove(final)
            temporary.replace(final)
        write_atomic(Path(work_dir, 'last_checkpoint'), str(final).encode())
        while 0 < self.max_keep_ckpts < len(kept):
            _remove(Path(self.out_dir, kept.pop(0)))
        self._kept = kept

    def _wait(self, runner: Runner) -> None:
        if self._writing is not None:
            self._writing[1].exception()
            self._report(runner)

    def _report(self, runner: Runner) -> None:
        """Reports an error of the last write, if it has ended."""
        if self._writing is None or not self._writing[1].done():
            return
        (name, job), self._writing = self._writing, None
        if job.exception() is not None:
            self._failed(runner, name, job.exception())

    def _failed(self, runner: Runner, name: str, error: BaseException | None) -> None:
        good = Path(self.out_dir, self._kept[-1]) if self._kept else 'none'
        message = (
            f'The checkpoint {name} could not be written to {self.out_dir}: {error}. The last '
            f'good one is {good}. Free space there; the next checkpoint is written when it is due.'
        )
        if self.on_error == 'stop':
            raise CheckpointWriteError(message) from error
        runner.logger.error(message)


def _largest(*numbers: int) -> list[int]:
    """The maximum of each number over all ranks; a flag becomes 1 if any rank has set it."""
    found = torch.tensor(numbers, dtype=torch.int32)
    all_reduce(found, op='max')
    return found.tolist()  # type: ignore[no-any-return]


def release_signals(runner: Runner) -> None:
    """Releases the signals when a training loop ends by an error, which calls no hook."""
    for hook in runner.hooks:
        if isinstance(hook, AtomicCheckpointHook):
            hook.signals.release()


def _has_stepped(runner: Runner) -> bool:
    """Whether the optimizer has used all gradients, none being accumulated."""
    should_update = getattr(runner.optim_wrapper, 'should_update', None)
    return should_update is None or should_update()


def _saves_one_file(runner: Runner) -> bool:
    """Whether rank 0 writes one file; sharded strategies write a folder with a file per rank."""
    strategy = getattr(runner, 'strategy', None)
    full = getattr(strategy, '_is_full_state_dict', lambda: True)
    return type(strategy).__name__ != 'DeepSpeedStrategy' and full()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
