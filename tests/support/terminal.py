"""Programs on a terminal of their own, where Ctrl-C reaches all of their processes."""

import fcntl
import os
import pty
import subprocess
import termios
import threading
import time
from pathlib import Path

from support.tools import imports_done


class Terminal:
    """A Python program on a new pseudo-terminal; ``output`` is what it has shown so far."""

    def __init__(self, command: list, cwd: Path, env: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        run = imports_done(command, env)

        def lead_and_run() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            run()

        self.process = subprocess.Popen(
            [*map(str, command)],
            cwd=cwd,
            env=env,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lead_and_run,
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
