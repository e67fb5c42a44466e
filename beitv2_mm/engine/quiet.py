"""A terminal that shows the training: what every run logs alike goes only to the log file."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.logging import MMLogger

# How the messages begin that fill hundreds of lines, or warn of what no user has done.
BULK = (
    'Config:\n',  # also in the work directory, as a config to run
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
    return not record.getMessage().startswith('Unexpected keys')  # the head of a teacher


def hide_unexpected_keys() -> None:
    """Silences timm about the weights of a head that a teacher goes without."""
    logging.getLogger('timm.models._builder').addFilter(_is_no_list_of_keys)


@contextmanager
def quiet_terminal() -> Iterator[None]:
    """Runners that are built in this context show what is new, and write all to their log files.

    Python's warnings of the libraries about themselves are silent from here on.
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
