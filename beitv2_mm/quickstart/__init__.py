from beitv2_mm.quickstart.job import run
from beitv2_mm.quickstart.settings import FAST, NORMAL, Options, Scale

__all__ = ['FAST', 'NORMAL', 'Options', 'Scale', 'run']
