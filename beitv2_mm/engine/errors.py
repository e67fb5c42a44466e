"""Errors for which the tools print only the message, because the user can act on it."""


class TrainingError(RuntimeError):
    """A run cannot start, or was stopped on purpose; the message says why and what to do."""


class LaunchError(TrainingError):
    """The options, paths or checkpoint that the user gave contain a mistake."""


class ConfigError(TrainingError):
    """Settings contradict each other or the data; the message names them."""


class CheckpointWriteError(TrainingError):
    """A checkpoint could not be written; the message names the last good one."""


class DivergenceError(TrainingError):
    """Several steps in a row had NaN or Inf in the losses or gradients."""


class MemoryShortageError(TrainingError):
    """Memory ran out in a training step; the message says how to save some."""
