"""Trainings as stages: tools/train.py in a process of its own, watched until it ends."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from rich.console import Console

from beitv2_mm import config_root
from beitv2_mm.engine.hooks.progress import PROGRESS
from beitv2_mm.jobs.stages import (
    HURRY,
    STOP,
    Metrics,
    Stage,
    StageError,
    artifact,
    last_checkpoint,
    read_json,
)
from beitv2_mm.visualization.curves import last_values, read_scalars
from beitv2_mm.visualization.page import duration

LOG = 'log'
PATIENCE = 300.0  # seconds that a stopped training has for its step and its checkpoint
SETTLES = 15.0  # seconds after which the speed of steps is representative: the first are slow

Values = Mapping[str, object]  # changes to a config: dotted names -> values
METRICS = {  # of the validation of each task
    'tokenizer': ('cosine', 'cosine_constant', 'codebook_usage', 'perplexity', 'unused_codes'),
    'pretrain': ('accuracy_main', 'accuracy_aggregation', 'accuracy_constant'),
    'finetune': ('accuracy/top1',),
    'segment': ('mIoU', 'mAcc', 'aAcc'),
    'detect': ('coco/bbox_mAP', 'coco/bbox_mAP_50'),
    'detect with masks': ('coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/segm_mAP'),
}


def training_stage(
    name: str,
    task: str,
    path: Path,
    logger: logging.Logger,
    changes: Values | None = None,
    *,
    places: Values | None = None,
    uses: Mapping[str, str] | None = None,
    after: Sequence[str] = (),
    gpus: int = 1,
    environment: Mapping[str, str] | None = None,
    later: float = 0.0,
) -> Stage:
    """A stage that trains a config, from its last checkpoint if there is one, and returns the last
    `METRICS` of its validation.

    Args:
        task: a key of `METRICS`.
        changes: to the config; with other changes a finished stage runs again.
        places: changes that depend on where files are, and do not make the stage run again.
        uses: settings of the config that take a file -> the stages that make the files.
        after: further stages that this one builds on.
        gpus: several are started by torchrun.
        environment: variables of the process.
        later: the work of the stages after this one, in multiples of its own.
    """
    changes, uses = changes or {}, uses or {}

    def action(folder: Path) -> Metrics:
        command: list[str | Path] = [config_root() / 'tools/train.py', path, '--work-dir', folder]
        variables = dict(environment or {})
        if gpus > 1:
            torchrun = ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={gpus}']
            command = [*torchrun, *command, '--launcher', 'pytorch']
            # torchrun would kill its processes 30 seconds after a signal, in mid-checkpoint.
            variables.setdefault('PET_SHUTDOWN_TIMEOUT', f'{PATIENCE:.0f}')
        command += ['--resume', 'auto']
        made = {key: artifact(folder.parent / stage) for key, stage in uses.items()}
        values = {**changes, **(places or {}), **made}
        if values:
            command += ['--cfg-options', *(f'{key}={value}' for key, value in values.items())]
        train(command, folder, logger, variables, later)
        found = last_values(read_scalars(folder), [f'val/{metric}' for metric in METRICS[task]])
        return {key.removeprefix('val/'): value for key, value in found.items()}

    settings = Config.fromfile(path)
    settings.merge_from_dict(dict(changes))
    return Stage(name, settings.to_dict(), action, [*after, *uses.values()])


def train(
    command: Sequence[str | Path],
    folder: Path,
    logger: logging.Logger,
    environment: Mapping[str, str] | None = None,
    later: float = 0.0,
) -> None:
    """Runs a training command in a process of its own; its output goes to ``folder/log``, its
    progress to the terminal. When interrupted, it lets the process save and end first.

    Args:
        later: see `training_stage`.

    Raises:
        StageError: the command fails.
    """
    log = folder / LOG
    (folder / PROGRESS).unlink(missing_ok=True)  # of an earlier attempt
    with log.open('ab') as sink:
        child = subprocess.Popen(
            [sys.executable, *command],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            # Ctrl-C reaches only this process, which then ends the child and its workers in order.
            start_new_session=True,
        )
        try:
            for _ in follow(child, folder, logger, later):
                if STOP.is_set():
                    raise StageError(f'{folder.name} was stopped')
        except BaseException:
            logger.warning(
                f'{folder.name}: a training ends after its current step and checkpoint; a second '
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
    """Ends a child that still runs: it may save first, then it and its workers end by force."""
    child.send_signal(signal.SIGTERM)  # processes in the background of a shell ignore Ctrl-C
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
    """Shows a child's progress until it ends, and yields twice a second; without a terminal, logs a
    line every minute.

    Args:
        folder: the child's work directory, whose name is that of the stage.
        later: see `training_stage`.
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
            if state := read_json(folder / PROGRESS):
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
