"""Records SIGTERM and Ctrl-C, so that a run can end after its current iteration."""

import os
import signal
import threading
import time
from typing import Any

from mmengine.dist import is_main_process


class StopSignals:
    """Records the first signal as `received`; another one ends the process at once.

    Another signal within a second is ignored: a terminal sends Ctrl-C to all processes, and
    launchers send it to theirs again.
    """

    def __init__(self) -> None:
        self.received = 0
        self._received_at = 0.0
        self._before: dict[int, Any] = {}  # the previous handlers
        self._pid = 0

    def listen(self) -> None:
        """Installs the handlers, which only the main thread can do.

        Signals that are ignored stay so, such as those of a shell's background job.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        self._pid = os.getpid()
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)

    def release(self) -> None:
        """Restores the previous handlers."""
        while self._before:
            signal.signal(*self._before.popitem())

    def _note(self, number: int, frame: object) -> None:
        if not self.received:
            self.received, self._received_at = number, time.monotonic()
            # The logger may be writing just now. Workers, which inherit the handler, say nothing.
            if is_main_process() and os.getpid() == self._pid:
                os.write(2, b'\nSaving after this iteration. A second Ctrl-C ends at once.\n')
        elif time.monotonic() - self._received_at >= 1:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
