"""The outcome of a quickstart: as data, as a table in the terminal, as `report.json` and
`report.html`."""

import dataclasses
import json
import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from beitv2_mm.files import write_atomic
from beitv2_mm.visualization.page import render


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracies in per cent of runs that differ by their seed."""

    per_seed: list[float]
    mean: float
    spread: float  # sample standard deviation, 0 for a single seed


def accuracy(per_seed: Sequence[float]) -> Accuracy:
    """Summary of at least one accuracy (per cent)."""
    values = [float(value) for value in per_seed]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return Accuracy(values, statistics.fmean(values), spread)


@dataclass(frozen=True)
class SegmentationScore:
    """What one segmentor reached on composites, per cent."""

    label: str
    miou: float
    macc: float
    aacc: float


@dataclass(frozen=True)
class StageRecord:
    """One stage that ran; seconds of wall clock, all attempts together."""

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


@dataclass(frozen=True)
class Report:
    """Everything the report shows. Shares and accuracies are per cent."""

    title: str
    summary: str
    cosine: float  # of the tokenizer's output to the teacher, validation images
    codebook_usage: float
    mim_accuracy: float  # masked patches whose code is predicted, main head
    mim_accuracy_aggregation: float
    scratch: Accuracy  # without layer-wise learning-rate decay
    scratch_layer_decay: Accuracy
    pretrained: Accuracy
    stages: list[StageRecord]
    machine: dict[str, str]
    settings: list[tuple[str, str, dict[str, object]]]  # training, config, changes to it
    limits: list[str]  # what the figures do not show, one sentence each
    commands: list[tuple[str, str]]  # how to go on: purpose, command line
    pictures: list[Picture]
    segmentation: list[SegmentationScore] = field(default_factory=list)

    @property
    def gain(self) -> float:
        """Points by which pretraining beats the better way of training from scratch."""
        return self.pretrained.mean - max(self.scratch.mean, self.scratch_layer_decay.mean)

    def rows(self) -> list[tuple[str, str, str]]:
        """The table: quantity, value, details."""
        return [
            ('Tokenizer: cosine to the teacher', f'{self.cosine:.3f}', 'validation images'),
            (
                'Tokenizer: codebook usage',
                _percent(self.codebook_usage),
                'codes used at least once',
            ),
            ('MIM: accuracy on masked patches', _percent(self.mim_accuracy), 'main branch'),
            ('', _percent(self.mim_accuracy_aggregation), 'patch aggregation branch'),
            _top1('Top-1 from scratch', self.scratch, 'no layer decay'),
            _top1('', self.scratch_layer_decay, 'layer decay'),
            _top1('Top-1 pretrained', self.pretrained, 'layer decay'),
            *(
                ('' if row else 'mIoU on composites', _percent(score.miou), score.label)
                for row, score in enumerate(self.segmentation)
            ),
            (
                'Top-1 gain by pretraining',
                f'{self.gain:+.1f} points',
                'over the better from scratch',
            ),
        ]


def _percent(value: float) -> str:
    return f'{value:.1f} %'


def _top1(label: str, result: Accuracy, note: str) -> tuple[str, str, str]:
    seeds = ', '.join(f'{value:.1f}' for value in result.per_seed)
    spread = f' ± {result.spread:.1f}' if len(result.per_seed) > 1 else ''
    return label, f'{result.mean:.1f}{spread} %', f'{note}; seeds: {seeds}'


def log_table(report: Report, logger: logging.Logger) -> None:
    """Log the table as aligned text, one record."""
    rows = report.rows()
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    rule = '-' * (sum(widths) + 4)
    lines = [
        f'{label:<{widths[0]}}  {value:>{widths[1]}}  {note}'.rstrip()
        for label, value, note in rows
    ]
    logger.info('\n'.join([report.title, rule, *lines, rule]))


def to_dict(report: Report) -> dict[str, object]:
    """What `report.json` holds: the fields and the gain; of pictures their files."""
    content = dataclasses.asdict(report)
    content['gain'] = report.gain
    content['pictures'] = {
        picture.name: f'pictures/{picture.name}.png' for picture in report.pictures
    }
    return content


def write_report(report: Report, out_dir: str | Path) -> Path:
    """Write `report.json`, `report.html` and `pictures/*.png`; returns the page's path.

    The page needs no other file. Every file appears whole or not at all.
    """
    out_dir = Path(out_dir)
    (out_dir / 'pictures').mkdir(parents=True, exist_ok=True)
    for picture in report.pictures:
        write_atomic(out_dir / 'pictures' / f'{picture.name}.png', picture.png)
    text = json.dumps(to_dict(report), indent=2, ensure_ascii=False, default=str) + '\n'
    write_atomic(out_dir / 'report.json', text.encode())
    page = out_dir / 'report.html'
    write_atomic(page, render(report).encode())
    return page
