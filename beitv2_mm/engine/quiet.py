"""Keeps messages that are the same in every run off the terminal; the log file has them all."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.logging import MMLogger

# Beginnings of messages that fill hundreds of lines, or warn about the libraries themselves.
BULK = (
    'Config:\n',  # the work directory has it too, as a file
    'Hooks will be executed in the following order',
    'paramwise_options -- ',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    'Distributed training is not used, all SyncBatchNorm',
    'The prefix is not set in metric class',
)
ENVIRONMENT = 'System environment:'
WARNINGS = ('``build_loss`` would be', 'Default ``avg_non_ignore`` is', 'The draw is False')


def _is_news(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not message.startswith(BULK) and ENVIRONMENT not in message[:100]


def _is_no_list_of_keys(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith('Unexpected keys')


def hide_unexpected_keys() -> None:
    """Silences timm about the weights of a head that a teacher does not have."""
    logging.getLogger('timm.models._builder').addFilter(_is_no_list_of_keys)


@contextmanager
def quiet_terminal() -> Iterator[None]:
    """Runners that are built in this context log everything to the file, and less to the terminal.

    From here on, Python's warnings that the libraries raise about themselves are ignored.
    """
    for message in WARNINGS:
        warnings.filterwarnings('ignore', message)
    hide_unexpected_keys()
    init = MMLogger.__init__

    def init_quietly(self: MMLogger, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        for handler in self.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_is_news)

    MMLogger.__init__ = init_quietly  # type: ignore[method-assign]
    try:
        yield
    finally:
        MMLogger.__init__ = init  # type: ignore[method-assign]
