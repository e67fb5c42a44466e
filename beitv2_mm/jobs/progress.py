"""Progress of a training in another process, from the file that its `ProgressHook` keeps."""

import json
import logging
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from beitv2_mm.engine.hooks.progress import PROGRESS
from beitv2_mm.visualization.page import duration

SETTLES = 15.0  # seconds of steps after which their speed says something: the first ones are slow


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
