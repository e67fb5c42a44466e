"""Errors that end a run for a reason that the user can act on; tools print only their message."""


class TrainingError(RuntimeError):
    """Training was stopped on purpose; the message says why and what to do."""


class ConfigError(TrainingError):
    """Settings that do not go together; the message names them."""


class CheckpointWriteError(TrainingError):
    """A checkpoint could not be written; the message says which one is the last good one."""


class DivergenceError(TrainingError):
    """Several steps in a row had NaN or Inf in the losses or gradients."""


class MemoryShortageError(TrainingError):
    """Memory ran out in a training step; the message names what needs less of it."""


class LaunchError(Exception):
    """A mistake in what the user gave: options, paths or the checkpoint."""
