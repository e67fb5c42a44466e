"""Stages of a long job: each runs once, continues after an interruption, and runs again when its
settings, or those of a stage that it builds on, have changed."""

import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.visualization.page import duration

Metrics = dict[str, float]
STOP = threading.Event()  # ends the trainings of all threads
HURRY = threading.Event()  # ends them without waiting for their checkpoints


class StageError(RuntimeError):
    """A stage failed; the message says where and what to do."""


@dataclass(frozen=True)
class Stage:
    """``action(folder)`` does the work and returns metrics; ``after`` names what it builds on."""

    name: str
    settings: Mapping[str, object]
    action: Callable[[Path], Metrics]
    after: Sequence[str] = ()


@dataclass(frozen=True)
class Result:
    """A finished stage; seconds are those of all attempts together."""

    folder: Path
    metrics: Metrics
    seconds: float


Results = Mapping[str, Result]


class Stages:
    """Runs each stage in its folder of ``out``.

    ``STAGE/started.json`` holds the key (a hash of the settings) of the folder's content, and
    ``STAGE/done.json`` appears when the stage is complete. The log names ``count``, the number of
    stages.
    """

    def __init__(self, out: Path, logger: logging.Logger, count: int | None = None) -> None:
        self.out = out
        self.logger = logger
        self.count = count
        self.results: dict[str, Result] = {}
        self._keys: dict[str, str] = {}

    def run(self, stage: Stage) -> Result:
        """Skips, continues or starts a stage; raises what its action raises."""
        folder = self.out / stage.name
        key = self._keys[stage.name] = self._key(stage)
        done = read_json(folder / 'done.json')
        if done.get('key') == key:
            self.logger.info(f'{stage.name}: done already, skipped')
            result = Result(folder, done['metrics'], done['seconds'])
        else:
            result = self._work(stage, folder, key)
        self.results[stage.name] = result
        return result

    def run_together(self, stages: Sequence[Stage], workers: int) -> None:
        """Runs stages that do not build on each other, ``workers`` at a time.

        Ctrl-C or the first error ends the other stages, and is raised when they have ended.
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
        """Deletes the folder of a stage, so that it runs again.

        Raises:
            ValueError: the folder was not made by a stage.
        """
        folder = self.out / name
        if folder.exists() and any(folder.iterdir()):
            if not (folder / 'started.json').exists():
                raise ValueError(f'{folder} was not made by this program: move it, or change --out')
            shutil.rmtree(folder)

    def _work(self, stage: Stage, folder: Path, key: str) -> Result:
        started = read_json(folder / 'started.json')
        if started.get('key') == key:
            saved = last_checkpoint(folder)
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
    """Waits until all have ended. An interrupted join of their threads would count as done."""
    for future in futures:
        if not future.cancelled():
            future.exception()


def read_json(path: Path) -> dict:
    """The content of a file; empty where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def _write(path: Path, content: dict) -> None:
    write_atomic(path, (json.dumps(content, indent=2) + '\n').encode())


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def artifact(folder: Path) -> Path:
    """The file that a finished stage made: its last checkpoint, or its only .safetensors file.

    Raises:
        StageError: there is none.
    """
    last = last_checkpoint(folder)
    found = [last] if last else list(folder.glob('*.safetensors'))
    if len(found) != 1 or not found[0].exists():
        raise StageError(f'{folder} has lost its checkpoint: delete the folder and run again')
    return found[0]


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a stage; None where it has none."""
    pointer = folder / 'last_checkpoint'
    text = pointer.read_text().strip() if pointer.exists() else ''
    # By name: mmengine writes the whole path, which a moved folder outdates.
    return folder / Path(text).name if text else None
