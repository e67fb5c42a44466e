"""Command lines run in this process, which saves the imports of a fresh one."""

import logging
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer

ROOT = Path(__file__).parents[2]
Tool = Callable[..., None]  # `run_tool`, as the fixture `tool`


@contextmanager
def started_with(*words: object) -> Iterator[None]:
    """The program's name and arguments are ``words``, as in a fresh process.

    mmengine names a run by its config and the second in which it starts, and runs of equal names
    share their logger and its history: those of earlier runs are forgotten.
    """
    for shared in (MMLogger, MessageHub, Visualizer):
        shared._instance_dict.clear()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with patch.object(sys, 'argv', [*map(str, words)]):
            yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        logging.disable(logging.NOTSET)  # which the benchmark sets for its process


def run_tool(tool: str | Path, *arguments: object) -> None:
    """Runs ``tools/{tool}.py``, or the script of a path, as ``python`` would."""
    script = tool if isinstance(tool, Path) else ROOT / f'tools/{tool}.py'
    with started_with(script, *arguments):
        runpy.run_path(str(script), run_name='__main__')
