"""Progress of a training in another process, read from its log."""

import logging
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console

from beitv2_mm.visualization.page import duration

SETTLES = 15.0  # seconds of steps after which their speed says something: the first ones are slow
ETA = re.compile(r'\beta:? ((?:(\d+) days?, )?(\d+):(\d\d):(\d\d))')


def follow(
    child: subprocess.Popen,
    read: Callable[[], str],
    name: str,
    logger: logging.Logger,
    later: float = 0.0,
) -> Iterator[None]:
    """Show a child's progress until it ends, and yield twice a second; without a terminal, a line
    every minute.

    Args:
        read: what its log has got since the last call.
        later: the work of the stages after it, in multiples of its own.
    """
    begin = reported = time.monotonic()
    text, estimated = 'loading', False
    first_step: float | None = None  # seconds after the start
    console = Console(stderr=True, quiet=threading.current_thread() is not threading.main_thread())
    live = console.is_terminal and not console.quiet
    with console.status(f'{name}: {text}') as status:
        while child.poll() is None:
            time.sleep(0.5)
            yield
            for line in read().splitlines():
                text = progress(line) or text
            passed, left = time.monotonic() - begin, remaining(text)
            whole = ''
            if left is not None:
                first_step = first_step or passed
                if later:
                    whole = f', all stages in {duration(left + later * (passed + left))}'
            message = f'{name}: {text}, {duration(passed)} so far{whole}'
            status.update(message)
            if left is not None and not estimated and passed - (first_step or 0) >= SETTLES:
                logger.info(f'{name}: done in {duration(left)} at this speed{whole}')
                estimated, reported = True, time.monotonic()
            if not live and time.monotonic() - reported > 60:
                reported = time.monotonic()
                logger.info(message)


def progress(line: str) -> str:
    """A line of mmengine's log -> 'train 100/2000, loss 5.31, eta 0:01:02'; '' for other lines."""
    match = re.search(r'\((train|val|test)\)\s+((?:\[[^\]]*\])+)', line)
    if match is None:
        return ''
    mode, position = match.groups()
    parts = [f'{mode} ' + ' '.join(re.findall(r'\[\s*([^\]]*)\]', position))]
    loss, eta = re.search(r'\bloss: (\S+)', line), ETA.search(line)
    if loss:
        parts.append(f'loss {loss[1]}')
    if eta:
        parts.append(f'eta {eta[1]}')
    return ', '.join(parts)


def remaining(text: str) -> float | None:
    """Seconds of the training that a line promises; None where it says nothing of it."""
    eta = ETA.search(text)
    if eta is None or text.startswith('val'):
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in eta.groups()[1:])
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds
