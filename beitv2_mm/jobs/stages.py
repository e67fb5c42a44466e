"""Stages of a long job: each runs once, continues after an interruption, and runs again when its
settings, or those of a stage it builds on, have changed."""

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.engine.hooks.progress import PROGRESS
from beitv2_mm.jobs.progress import follow
from beitv2_mm.visualization.curves import last_values, read_scalars
from beitv2_mm.visualization.page import duration

Metrics = dict[str, float]
LOG = 'log'
STOP = threading.Event()  # ends the trainings of all threads
HURRY = threading.Event()  # and does not wait for their checkpoints
PATIENCE = 300.0  # seconds for the step that a stopped training is in, and its checkpoint


class StageError(RuntimeError):
    """A stage failed; the message says where and what to do."""


@dataclass(frozen=True)
class Stage:
    """`action(folder)` does the work and returns metrics; `after` names the stages it builds on."""

    name: str
    settings: Mapping[str, object]
    action: Callable[[Path], Metrics]
    after: Sequence[str] = ()


@dataclass(frozen=True)
class Result:
    """What a finished stage left behind. Seconds are those of all attempts together."""

    folder: Path
    metrics: Metrics
    seconds: float


class Stages:
    """Runs stages in folders of `out`.

    `<stage>/started.json` holds the key (a hash of the settings) of what the folder contains,
    `<stage>/done.json` appears when it is complete. `count` is the number of stages, for the log.
    """

    def __init__(self, out: Path, logger: logging.Logger, count: int | None = None) -> None:
        self.out = out
        self.logger = logger
        self.count = count
        self.results: dict[str, Result] = {}
        self._keys: dict[str, str] = {}

    def run(self, stage: Stage) -> Result:
        """Skip, continue or start a stage; raises what its action raises."""
        folder = self.out / stage.name
        key = self._keys[stage.name] = self._key(stage)
        done = _read(folder / 'done.json')
        if done.get('key') == key:
            self.logger.info(f'{stage.name}: done already, skipped')
            result = Result(folder, done['metrics'], done['seconds'])
        else:
            result = self._work(stage, folder, key)
        self.results[stage.name] = result
        return result

    def run_together(self, stages: Sequence[Stage], workers: int) -> None:
        """Run stages that do not build on each other, `workers` at a time.

        Ctrl-C or the first error ends the others; it is raised when they have ended.
        """
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(self.run, stage) for stage in stages]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                STOP.set()
                pool.shutdown(wait=False, cancel_futures=True)
                try:
                    _wait(futures)
                except KeyboardInterrupt:
                    HURRY.set()
                    _wait(futures)
                raise

    def forget(self, name: str) -> None:
        """Delete a stage's folder, so that it runs again; ValueError if it is not a stage's."""
        folder = self.out / name
        if folder.exists() and any(folder.iterdir()):
            if not (folder / 'started.json').exists():
                raise ValueError(f'{folder} was not made by this program: move it, or change --out')
            shutil.rmtree(folder)

    def _work(self, stage: Stage, folder: Path, key: str) -> Result:
        started = _read(folder / 'started.json')
        if started.get('key') == key:
            saved = _last_checkpoint(folder)
            how = f'continues from {saved.name}' if saved else 'was not finished, starts again'
            self.logger.info(f'{stage.name}: {how}')
        else:
            self.forget(stage.name)
            number = list(self._keys).index(stage.name) + 1
            place = f' (stage {number} of {self.count})' if self.count else ''
            self.logger.info(f'{stage.name}{place}: starts')
            folder.mkdir(parents=True, exist_ok=True)
            started = {'key': key, 'seconds': 0.0}
            _write(folder / 'started.json', started)
        begin = time.perf_counter() - started['seconds']
        try:
            metrics = stage.action(folder)
        finally:
            seconds = time.perf_counter() - begin
            _write(folder / 'started.json', {'key': key, 'seconds': seconds})
        _write(folder / 'done.json', {'key': key, 'seconds': seconds, 'metrics': metrics})
        shown = ', '.join(f'{name} {value:.5g}' for name, value in metrics.items())
        self.logger.info(f'{stage.name}: {duration(seconds)}' + (f', {shown}' if shown else ''))
        return Result(folder, metrics, seconds)

    def _key(self, stage: Stage) -> str:
        content = [stage.name, stage.settings, [self._keys[name] for name in stage.after]]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _wait(futures: Sequence[Future]) -> None:
    """Until all have ended. An interrupted join of their threads would count as done."""
    for future in futures:
        if not future.cancelled():
            future.exception()


def _read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def _write(path: Path, content: dict) -> None:
    write_atomic(path, (json.dumps(content, indent=2) + '\n').encode())


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def config(path: Path, options: Mapping[str, object]) -> Config:
    """A config with its bases and `options` (dotted names) merged in."""
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(dict(options))
    return cfg


def artifact(folder: Path) -> Path:
    """The file that a finished stage made: its last checkpoint, or its only .safetensors file.

    Raises StageError if there is none.
    """
    last = _last_checkpoint(folder)
    found = [last] if last else list(folder.glob('*.safetensors'))
    if len(found) != 1 or not found[0].exists():
        raise StageError(f'{folder} has lost its checkpoint: delete the folder and run again')
    return found[0]


def _last_checkpoint(folder: Path) -> Path | None:
    pointer = folder / 'last_checkpoint'
    text = pointer.read_text().strip() if pointer.exists() else ''
    # By name: mmengine writes the whole path, which a moved folder outdates.
    return folder / Path(text).name if text else None


def train(
    command: Sequence[str | Path],
    folder: Path,
    logger: logging.Logger,
    environment: Mapping[str, str] | None = None,
    later: float = 0.0,
) -> None:
    """Run a training command in a process of its own; its output goes to `folder/log`, its progress
    to the terminal. `later` is the work of the stages after it, in multiples of its own.

    Raises StageError if it fails; when interrupted, lets it save and end first.
    """
    log = folder / LOG
    (folder / PROGRESS).unlink(missing_ok=True)  # that of an attempt before
    with log.open('ab') as sink:
        child = subprocess.Popen(
            [sys.executable, *command],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            # Ctrl-C reaches this process only, which then ends the child and its workers in order.
            start_new_session=True,
        )
        try:
            for _ in follow(child, folder, logger, later):
                if STOP.is_set():
                    raise StageError(f'{folder.name} was stopped')
        except BaseException:
            logger.warning(
                f'{folder.name}: ends after the step that it is in and its checkpoint; a second '
                'Ctrl-C ends it at once'
            )
            try:
                _end(child)
            finally:
                saved = _last_checkpoint(folder)
                then = f'continues from {saved.name}' if saved else 'saved nothing: starts again'
                logger.warning(f'{folder.name}: {then}')
            raise
    if child.returncode:
        tail = '\n'.join(log.read_text(errors='replace').splitlines()[-12:])
        raise StageError(
            f'{folder.name} failed (exit status {child.returncode}). Its log, {log}, ends:\n{tail}'
        )


def run_config(
    root: Path,
    config: Path,
    folder: Path,
    metrics: Sequence[str],
    logger: logging.Logger,
    options: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    gpus: int = 1,
    later: float = 0.0,
) -> Metrics:
    """Train a config with `root`/tools/train.py in `folder`, from its last checkpoint if there is
    one; returns the last `metrics` of its validation. `options` change the config; several `gpus`
    are started by torchrun; `later` is that of `train`."""
    command: list[str | Path] = [root / 'tools/train.py', config, '--work-dir', folder]
    if gpus > 1:
        torchrun = ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={gpus}']
        command = [*torchrun, *command, '--launcher', 'pytorch']
    command += ['--resume', 'auto']
    if options:
        command += ['--cfg-options', *(f'{key}={value}' for key, value in options.items())]
    train(command, folder, logger, environment, later)
    found = last_values(read_scalars(folder), [f'val/{metric}' for metric in metrics])
    return {key.removeprefix('val/'): value for key, value in found.items()}


def _end(child: subprocess.Popen, patience: float | None = None) -> None:
    """End a child that still runs: it may save first; then it and its workers by force."""
    child.send_signal(signal.SIGTERM)  # Ctrl-C is ignored by what a shell has put in the background
    deadline = time.monotonic() + (PATIENCE if patience is None else patience)
    try:
        while child.poll() is None and time.monotonic() < deadline and not HURRY.wait(0.1):
            pass
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
