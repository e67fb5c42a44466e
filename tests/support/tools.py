"""Command lines run in this process or in a copy of it, which saves the imports of a fresh one."""

import faulthandler
import gc
import logging
import os
import runpy
import signal
import socket
import sys
import traceback
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


def free_port() -> str:
    """A port on which nothing listens."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return str(free.getsockname()[1])


def run_tool(tool: str | Path, *arguments: object) -> None:
    """Runs ``tools/{tool}.py``, or the script of a path, as ``python`` would."""
    script = tool if isinstance(tool, Path) else ROOT / f'tools/{tool}.py'
    with started_with(script, *arguments):
        runpy.run_path(str(script), run_name='__main__')


def _run(words: list[str]) -> int:
    """Does what ``python`` does with these words; returns the exit status."""
    program, arguments = words[0], words[1:]
    try:
        with started_with(*(arguments if program == '-c' else words)):
            if program == '-c':
                sys.argv[:] = ['-c', *arguments[1:]]
                exec(compile(arguments[0], '<string>', 'exec'), {'__name__': '__main__'})
            else:
                runpy.run_path(program, run_name='__main__')
    except SystemExit as stopped:
        if isinstance(stopped.code, str):
            sys.stderr.write(f'{stopped.code}\n')
        return stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        sys.stderr.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def imports_done(command: list, env: dict[str, str]) -> Callable[[], None]:
    """A ``preexec_fn`` for `subprocess.Popen`: in place of ``command``, which is ``python`` with a
    script or with -c, the copy of this process that it calls from does the same."""
    words = list(map(str, command[1:]))

    def become() -> None:
        faulthandler.disable()
        gc.enable()
        os.closerange(3, 1024)  # among them the pipe that tells Popen that the program has started
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout, sys.stderr = (os.fdopen(i, 'w', 1, closefd=False) for i in (1, 2))
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
        os.environ.clear()
        os.environ.update(env)
        logging.getLogger().handlers.clear()  # of pytest
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Popen has given back their action
            signal.signal(number, signal.SIG_IGN)
        status = _run(words)
        sys.stdout.flush()
        os._exit(status)

    return become
