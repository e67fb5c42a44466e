"""The same work by this package and its peers, measured in turn: time, memory, share of the limit.

A benchmark is a function of `Settings` that lists pieces of `Work`; `measure` turns each into rows.
"""

from beitv2_mm.benchmark.measure import Row, measure
from beitv2_mm.benchmark.report import machine, plot, table, to_json
from beitv2_mm.benchmark.suites import SUITES
from beitv2_mm.benchmark.work import NotTheSameError, Settings, Step, Work

__all__ = [
    'SUITES',
    'NotTheSameError',
    'Row',
    'Settings',
    'Step',
    'Work',
    'machine',
    'measure',
    'plot',
    'table',
    'to_json',
]
