"""Peak memory in MiB: of a process beyond its start, or of a process and its children together."""

import multiprocessing
import os
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import torch

MIB = 2**20


def peak_beyond_start(run: Callable[[], object], device: str) -> float | None:
    """Highest memory during ``run`` less that at its start.

    On an accelerator PyTorch's allocator is asked, else the resident set of the process; None
    where the system has no /proc for that.
    """
    if device != 'cpu':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    if not sys.platform.startswith('linux'):
        return None
    before = int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize()
    Path('/proc/self/clear_refs').write_text('5')  # the peak starts again from here
    run()
    status = Path('/proc/self/status').read_text()
    return (_kilobytes(status, 'VmHWM') * 1024 - before) / MIB


def peak_of_family(run: Callable[[], object], interval: float = 0.2) -> float | None:
    """Highest proportional set size of this process and its children, sampled during ``run``.

    A page that several processes share counts once. None where the system has no /proc for that.
    """
    if not Path('/proc/self/smaps_rollup').exists():
        return None
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, family_memory())
            done.wait(interval)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return peak


def family_memory() -> float:
    """Proportional set size of this process and its children now."""
    total = 0
    for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        try:
            total += _kilobytes(Path(f'/proc/{process}/smaps_rollup').read_text(), 'Pss')
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
    return total / 1024


def _kilobytes(text: str, key: str) -> int:
    return int(text.split(f'{key}:')[1].split()[0])
