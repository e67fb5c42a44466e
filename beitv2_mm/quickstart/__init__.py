from .job import run
from .settings import FAST, NORMAL, Options, Scale

__all__ = ['FAST', 'NORMAL', 'Options', 'Scale', 'run']
