"""Programs on a terminal of their own, where Ctrl-C reaches all of their processes."""

import os
import pty
import signal
import subprocess
import threading
import time
from pathlib import Path


def _leading_a_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # a shell's background job starts with Ctrl-C ignored, and so would these tests' processes
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A program that runs on a new pseudo-terminal; ``output`` is what it has shown so far."""

    def __init__(self, command: list, cwd: Path, env: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*map(str, command)],
            cwd=cwd,
            env=env,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_leading_a_terminal,
        )
        os.close(slave)
        self.output = ''
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                read = os.read(self._master, 4096)
            except OSError:  # the last process has closed its end
                return
            self.output += read.decode(errors='replace')

    def wait_for(self, text: str, seconds: float = 90) -> None:
        """Until the program has shown this."""
        deadline = time.monotonic() + seconds
        while text not in self.output:
            assert time.monotonic() < deadline and self.process.poll() is None, self.output
            time.sleep(0.02)

    def press_ctrl_c(self) -> None:
        os.write(self._master, b'\x03')

    def finish(self, seconds: float = 90) -> int:
        """The exit status, once it has ended."""
        status = self.process.wait(seconds)
        self._reader.join(10)
        return status
