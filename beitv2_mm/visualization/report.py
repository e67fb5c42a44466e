"""The outcome of a job of several stages: as data, as a table in the terminal, as `report.json` and
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


Row = tuple[str, str, str]  # quantity, value, details
Figure = tuple[str, str, str]  # '' or 'main', value, label


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the reports of all jobs show; a job adds its figures. Shares and accuracies are per
    cent."""

    title: str
    summary: str
    stages: list[StageRecord]
    machine: dict[str, str]
    settings: list[tuple[str, str, dict[str, object]]]  # training, config, changes to it
    limits: list[str]  # what the figures do not show, one sentence each
    commands: list[tuple[str, str]]  # how to go on: purpose, command line
    pictures: list[Picture]
    segmentation: list[SegmentationScore] = field(default_factory=list)

    def headline(self) -> list[Figure]:
        """The figures at the top."""
        raise NotImplementedError

    def rows(self) -> list[Row]:
        """The table."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class PretrainingReport(Report):
    """Figures of a tokenizer and of the transformer pretrained with it."""

    cosine: float  # of the tokenizer's output to the teacher, validation images
    codebook_usage: float
    mim_accuracy: float  # masked patches whose code is predicted, main head
    mim_accuracy_aggregation: float

    def headline(self) -> list[Figure]:
        return [
            ('', f'{self.cosine:.3f}', 'cosine to the teacher'),
            ('', percent(self.codebook_usage), 'of the codebook in use'),
            ('main', percent(self.mim_accuracy), 'codes of hidden patches right'),
        ]

    def rows(self) -> list[Row]:
        usage = percent(self.codebook_usage)
        return [
            ('Tokenizer: cosine to the teacher', f'{self.cosine:.3f}', 'validation images'),
            ('Tokenizer: codebook usage', usage, 'codes used at least once'),
            ('MIM: accuracy on masked patches', percent(self.mim_accuracy), 'main branch'),
            ('', percent(self.mim_accuracy_aggregation), 'patch aggregation branch'),
        ]


@dataclass(frozen=True, kw_only=True)
class ComparisonReport(PretrainingReport):
    """Pretraining, and fine-tuning with and without it."""

    scratch: Accuracy  # without layer-wise learning-rate decay
    scratch_layer_decay: Accuracy
    pretrained: Accuracy

    @property
    def gain(self) -> float:
        """Points by which pretraining beats the better way of training from scratch."""
        return self.pretrained.mean - max(self.scratch.mean, self.scratch_layer_decay.mean)

    def headline(self) -> list[Figure]:
        scratch = max(self.scratch.mean, self.scratch_layer_decay.mean)
        return [
            ('', percent(scratch), 'top-1 from scratch'),
            ('', percent(self.pretrained.mean), 'top-1 pretrained'),
            ('main', f'{self.gain:+.1f}', 'points gained by pretraining'),
            ('', percent(self.codebook_usage), 'of the codebook in use'),
        ]

    def rows(self) -> list[Row]:
        return [
            *super().rows(),
            _top1('Top-1 from scratch', self.scratch, 'no layer decay'),
            _top1('', self.scratch_layer_decay, 'layer decay'),
            _top1('Top-1 pretrained', self.pretrained, 'layer decay'),
            *(
                ('' if row else 'mIoU on composites', percent(score.miou), score.label)
                for row, score in enumerate(self.segmentation)
            ),
            (
                'Top-1 gain by pretraining',
                f'{self.gain:+.1f} points',
                'over the better from scratch',
            ),
        ]


@dataclass(frozen=True, kw_only=True)
class ClassifierReport(Report):
    """Figures of a fine-tuned classifier, or of several ways to one."""

    results: dict[str, Accuracy]  # way -> top-1 on images held out, the one asked for first
    num_images: int  # held out
    num_classes: int
    largest_class: float  # share of all images

    def headline(self) -> list[Figure]:
        (label, first), *others = self.results.items()
        compared = [
            figure
            for name, other in others
            for figure in (
                ('', percent(other.mean), f'top-1, {name}'),
                ('', f'{first.mean - other.mean:+.1f}', f'points over {name}'),
            )
        ]
        return [
            ('main', percent(first.mean), f'top-1 on images held out, {label}'),
            *compared,
            ('', percent(100 / self.num_classes), 'by chance, classes alike'),
            ('', str(self.num_classes), 'classes'),
        ]

    def rows(self) -> list[Row]:
        chance = percent(100 / self.num_classes)
        return [
            ('Classes', str(self.num_classes), f'the largest has {percent(self.largest_class)}'),
            ('Chance', chance, 'as many images of each class are held out'),
            *(
                _top1('' if row else 'Top-1', value, f'{name}, {self.num_images} images held out')
                for row, (name, value) in enumerate(self.results.items())
            ),
        ]


@dataclass(frozen=True, kw_only=True)
class SegmentorReport(Report):
    """Figures of one segmentor, on images held out."""

    miou: float
    macc: float
    aacc: float
    num_images: int
    num_classes: int

    def headline(self) -> list[Figure]:
        return [
            ('main', percent(self.miou), 'mean IoU on images held out'),
            ('', percent(self.aacc), 'of pixels right'),
            ('', str(self.num_classes), 'classes'),
        ]

    def rows(self) -> list[Row]:
        return [
            ('Mean IoU', percent(self.miou), f'{self.num_images} images held out'),
            ('Mean class accuracy', percent(self.macc), f'{self.num_classes} classes'),
            ('Pixel accuracy', percent(self.aacc), ''),
        ]


def percent(value: float) -> str:
    """12.345 -> '12.3 %'"""
    return f'{value:.1f} %'


def _top1(label: str, result: Accuracy, note: str) -> Row:
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
    """What `report.json` holds: the fields, a comparison's gain; of pictures their files."""
    content = dataclasses.asdict(report)
    if isinstance(report, ComparisonReport):
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
