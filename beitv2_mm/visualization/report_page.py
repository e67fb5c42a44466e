"""The outcome of a job as `report.json` and `report.html`."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from html import escape
from pathlib import Path

from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.visualization.accuracy import percent
from beitv2_mm.visualization.page import duration, figure, figures, page, section, table
from beitv2_mm.visualization.report import Report, log_table


def to_dict(report: Report) -> dict[str, object]:
    """The content of `report.json`: the fields, the values derived from them, and the files of the
    pictures."""
    content = {**dataclasses.asdict(report), **report.derived()}
    content['pictures'] = {
        picture.name: f'pictures/{picture.name}.png' for picture in report.pictures
    }
    return content


def publish(report: Report, out_dir: Path, logger: logging.Logger) -> Path:
    """Log a report's table and write its files; returns the page's path."""
    log_table(report, logger)
    return write_report(report, out_dir)


def write_report(report: Report, out_dir: str | Path) -> Path:
    """Write `report.json`, `report.html` and `pictures/*.png`; returns the page's path.

    The page needs no other file. Every file is written completely or not at all.
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


def render(report: Report) -> str:
    """The page of a report as HTML text."""
    parts = [
        _verdict(report),
        figures(report.headline()),
        section('Results', table((), report.rows(), ('', 'number', 'note'), report.ends_in_total)),
        _segmentation(report),
        *(figure(picture) for picture in report.pictures),
        _details(report),
        section('How to go on', ''.join(
            f'<div>{escape(purpose)}</div><pre>{escape(line)}</pre>'
            for purpose, line in report.commands
        )),
        _settings(report),
    ]  # fmt: skip
    return page(report.title, report.summary, '\n'.join(parts))


def _verdict(report: Report) -> str:
    findings = report.verdict()
    if not findings:
        return ''
    kinds = {finding.kind for finding in findings}
    kind = next(kind for kind in ('bad', 'open', 'good') if kind in kinds)
    lines = ''.join(f'<p>{escape(finding.text)}</p>' for finding in findings)
    lines = lines.replace('± ', '±&nbsp;').replace(' %', '&nbsp;%')  # no line breaks there
    return f'<section class="verdict {kind}">{lines}</section>'


def _segmentation(report: Report) -> str:
    if not report.segmentation:
        return ''
    rows = [
        (score.label, percent(score.miou), percent(score.macc), percent(score.aacc))
        for score in report.segmentation
    ]
    head = ('', 'mIoU', 'mean class accuracy', 'pixel accuracy')
    about = '<figcaption>Measured on composites of the test set; one training each.</figcaption>'
    content = about + table(head, rows, ('', 'number', 'number', 'number'))
    return section('Segmentation of composites', content)


def _details(report: Report) -> str:
    """Stages and machine in two columns of similar height, and the limits where there is room."""
    stages, machine = _stages(report), _machine(report)
    limits = section('What these figures do not show', _list(report.limits))
    many = len(report.stages) > 8
    columns = (stages, machine + limits if many else machine)
    two = ''.join(f'<div>{column}</div>' for column in columns)
    return f'<div class="two">{two}</div>' + ('' if many else limits)


def _stages(report: Report) -> str:
    rows = [
        (stage.name.replace('_seed', ', seed ').replace('_', ' '), duration(stage.seconds))
        for stage in report.stages
    ]
    rows.append(('all stages', duration(sum(stage.seconds for stage in report.stages))))
    return section('What ran, and how long', table((), rows, ('', 'number'), total=True))


def _machine(report: Report) -> str:
    return section('Machine', table((), list(report.machine.items()), ('', '')))


def _list(items: Sequence[str]) -> str:
    return '<ul>' + ''.join(f'<li>{escape(item)}</li>' for item in items) + '</ul>'


def _settings(report: Report) -> str:
    rows = [
        (name, config, ', '.join(f'{key}={value}' for key, value in changes.items()) or 'nothing')
        for name, config, changes in report.settings
    ]
    rows_table = table(('training', 'config', 'changed in it'), rows, ('', '', ''))
    return f'<section><details><summary>Settings</summary>{rows_table}</details></section>'
