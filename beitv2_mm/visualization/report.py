"""The outcome of a job of several stages, as data and as a table in the terminal."""

import logging
from dataclasses import dataclass, field
from typing import ClassVar

from beitv2_mm.visualization.verdict import Finding


@dataclass(frozen=True)
class SegmentationScore:
    """The scores (per cent) of a segmentor, or of predicting the commonest class everywhere."""

    label: str
    miou: float
    macc: float
    aacc: float


@dataclass(frozen=True)
class StageRecord:
    """One stage that ran, with the wall-clock time of all its attempts together."""

    name: str
    seconds: float
    work_dir: str = ''


@dataclass(frozen=True)
class Picture:
    """A PNG for the page; it is also written to `pictures/<name>.png`."""

    name: str
    title: str
    caption: str
    png: bytes = field(repr=False)


Row = tuple[str, str, str]  # quantity, value, details
Figure = tuple[str, str, str]  # '' or 'main', value, label; the label's second line is a note


@dataclass(frozen=True, kw_only=True)
class Report:
    """The common part of the reports of all jobs; each job adds its figures. Shares and accuracies
    are per cent."""

    ends_in_total: ClassVar[bool] = False  # whether the last row is the result, and set in bold

    title: str
    summary: str
    stages: list[StageRecord]
    machine: dict[str, str]
    settings: list[tuple[str, str, dict[str, object]]]  # training, config, changes to the config
    limits: list[str]  # sentences on what the figures do not show
    commands: list[tuple[str, str]]  # next steps: purpose, command line
    pictures: list[Picture]
    segmentation: list[SegmentationScore] = field(default_factory=list)

    def verdict(self) -> list[Finding]:
        """The meaning of the figures, in a sentence or two."""
        raise NotImplementedError

    def derived(self) -> dict[str, object]:
        """Values for `report.json` that follow from the fields."""
        return {'verdict': [finding._asdict() for finding in self.verdict()]}

    def headline(self) -> list[Figure]:
        """The figures at the top."""
        raise NotImplementedError

    def rows(self) -> list[Row]:
        """The table."""
        raise NotImplementedError


def log_table(report: Report, logger: logging.Logger) -> None:
    """Log the table as aligned text with the verdict below it, in one record."""
    rows = report.rows()
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    rule = '-' * (sum(widths) + 4)
    lines = [
        f'{label:<{widths[0]}}  {value:>{widths[1]}}  {note}'.rstrip()
        for label, value, note in rows
    ]
    verdict = [finding.text for finding in report.verdict()]
    logger.info('\n'.join([report.title, rule, *lines, rule, *verdict]))
