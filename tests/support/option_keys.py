"""Whether a key of --cfg-options means something: the config has it, or the class takes it."""

from mmengine.config import Config

from beitv2_mm.engine.config_checks import first_unknown, parameters

__all__ = ['is_known', 'parameters']


def is_known(config: Config, key: str) -> bool:
    """Whether setting ``key`` changes something that the program reads."""
    return first_unknown(config, key) is None
