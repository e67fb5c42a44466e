"""From published archives (CIFAR-10, ADE20K, Fashion-MNIST) to folders that can be trained on."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import track


def progress(items: Iterable, description: str, total: int | None = None) -> Iterator[Any]:
    """The items, with a bar on the terminal; without a terminal the log lines are enough."""
    console = Console(file=sys.stderr)
    yield from track(items, description, total, console=console, disable=not sys.stderr.isatty())
