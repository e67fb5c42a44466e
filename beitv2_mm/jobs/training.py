"""Trainings as stages: tools/train.py in a process of its own, watched until it ends."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from rich.console import Console

from beitv2_mm import config_root
from beitv2_mm.engine.hooks.progress import PROGRESS
from beitv2_mm.jobs.stages import HURRY, STOP, Metrics, Stage, StageError, last_checkpoint
from beitv2_mm.visualization.curves import last_values, read_scalars
from beitv2_mm.visualization.page import duration

LOG = 'log'
PATIENCE = 300.0  # seconds for the step that a stopped training is in, and its checkpoint
SETTLES = 15.0  # seconds of steps after which their speed says something: the first ones are slow

Values = Mapping[str, object]  # changes to a config: dotted names -> values


def config(path: Path, options: Values) -> Config:
    """A config with its bases and `options` (dotted names) merged in."""
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(dict(options))
    return cfg


def training_stage(
    name: str,
    path: Path,
    metrics: Sequence[str],
    logger: logging.Logger,
    changes: Values | None = None,
    *,
    places: Callable[[], Values] = dict,
    after: Sequence[str] = (),
    gpus: int = 1,
    environment: Mapping[str, str] | None = None,
    later: float = 0.0,
) -> Stage:
    """A stage that trains a config, from its last checkpoint if there is one, and returns the last
    ``metrics`` of its validation.

    Args:
        changes: to the config; others make a finished stage run again.
        places: changes that are known when the stage starts, such as files that earlier stages
            made; they do not make it run again.
        gpus: several are started by torchrun.
        environment: variables of the process.
        later: the work of the stages after this one, in multiples of its own.
    """

    def action(folder: Path) -> Metrics:
        command: list[str | Path] = [config_root() / 'tools/train.py', path, '--work-dir', folder]
        if gpus > 1:
            torchrun = ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={gpus}']
            command = [*torchrun, *command, '--launcher', 'pytorch']
        command += ['--resume', 'auto']
        values = {**(changes or {}), **places()}
        if values:
            command += ['--cfg-options', *(f'{key}={value}' for key, value in values.items())]
        train(command, folder, logger, environment, later)
        found = last_values(read_scalars(folder), [f'val/{metric}' for metric in metrics])
        return {key.removeprefix('val/'): value for key, value in found.items()}

    return Stage(name, config(path, changes or {}).to_dict(), action, list(after))


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
                saved = last_checkpoint(folder)
                then = f'continues from {saved.name}' if saved else 'saved nothing: starts again'
                logger.warning(f'{folder.name}: {then}')
            raise
    if child.returncode:
        tail = '\n'.join(log.read_text(errors='replace').splitlines()[-12:])
        raise StageError(
            f'{folder.name} failed (exit status {child.returncode}). Its log, {log}, ends:\n{tail}'
        )


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


def follow(
    child: subprocess.Popen, folder: Path, logger: logging.Logger, later: float = 0.0
) -> Iterator[None]:
    """Show a child's progress until it ends, and yield twice a second; without a terminal, a line
    every minute.

    Args:
        folder: the child's work directory, whose name is that of the stage.
        later: the work of the stages after it, in multiples of its own.
    """
    begin = reported = time.monotonic()
    text, whole, estimated = 'loading', '', False
    first_step: float | None = None  # seconds after the start
    console = Console(stderr=True, quiet=threading.current_thread() is not threading.main_thread())
    live = console.is_terminal and not console.quiet
    with console.status(f'{folder.name}: {text}') as status:
        while child.poll() is None:
            time.sleep(0.5)
            yield
            passed = time.monotonic() - begin
            if state := read_progress(folder):
                left = state['seconds_left']
                text = f'{state["mode"]} {state["step"]}/{state["total"]}, {duration(left)} left'
                if state['mode'] == 'train':
                    first_step = first_step or passed
                    if later:
                        whole = f', all stages in {duration(left + later * (passed + left))}'
                    if not estimated and passed - first_step >= SETTLES:
                        logger.info(f'{folder.name}: done in {duration(left)} at this speed{whole}')
                        estimated, reported = True, time.monotonic()
            message = f'{folder.name}: {text}, {duration(passed)} so far{whole}'
            status.update(message)
            if not live and time.monotonic() - reported > 60:
                reported = time.monotonic()
                logger.info(message)


def read_progress(folder: Path) -> dict:
    """What `ProgressHook` wrote last: mode, step, total, seconds_left; empty before its first."""
    path = folder / PROGRESS
    return json.loads(path.read_text()) if path.exists() else {}
