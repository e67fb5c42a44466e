"""Command lines run in this process, which saves the imports of a fresh one."""

import runpy
import signal
import sys
from pathlib import Path
from unittest.mock import patch

from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer

ROOT = Path(__file__).parents[2]


def run_tool(tool: str | Path, *arguments: object) -> None:
    """Runs ``tools/{tool}.py``, or the script of a path, as ``python`` would.

    mmengine names a run by its config and the second in which it starts, and runs of equal names
    share their logger and its history: those of earlier runs are forgotten first.
    """
    for shared in (MMLogger, MessageHub, Visualizer):
        shared._instance_dict.clear()
    script = tool if isinstance(tool, Path) else ROOT / f'tools/{tool}.py'
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with patch.object(sys, 'argv', [str(script), *map(str, arguments)]):
            runpy.run_path(str(script), run_name='__main__')
    finally:
        signal.signal(signal.SIGTERM, handler)
