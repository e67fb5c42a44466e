"""SIGTERM and Ctrl-C as requests to end after the iteration, which a hook can ask for."""

import os
import signal
import threading
import time
from typing import Any

from mmengine.dist import is_main_process


class StopSignals:
    """Notes the first of these signals as `received`; a second one, a second later or more, ends
    the process at once: launchers pass on what a terminal has sent to all of them already."""

    def __init__(self) -> None:
        self.received = 0
        self._received_at = 0.0
        self._before: dict[int, Any] = {}  # the handlers that were there
        self._pid = 0

    def listen(self) -> None:
        """Take the signals over; only the main thread can, and ignored ones stay ignored, as those
        of a shell's background job."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._pid = os.getpid()
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)

    def release(self) -> None:
        """Install the previous handlers again."""
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, frame: object) -> None:
        if not self.received:
            self.received, self._received_at = number, time.monotonic()
            # Not through the logger, which may be writing just now; workers inherit the handler.
            if is_main_process() and os.getpid() == self._pid:
                os.write(2, b'\nSaving after this iteration. A second Ctrl-C ends at once.\n')
        elif time.monotonic() - self._received_at >= 1:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
