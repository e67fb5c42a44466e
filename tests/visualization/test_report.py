"""The report: figures, terminal table, JSON and a page that needs nothing else."""

import dataclasses
import io
import json
import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from beitv2_mm.visualization import (
    ClassifierReport,
    ComparisonReport,
    Picture,
    Report,
    SegmentationScore,
    SegmentorReport,
    StageRecord,
    accuracy,
    log_table,
    write_report,
)
from beitv2_mm.visualization.page import duration
from beitv2_mm.visualization.report_page import render

pytestmark = pytest.mark.cpu_only(reason='pages, nothing is computed')


def make_report() -> ComparisonReport:
    buffer = io.BytesIO()
    Image.new('RGB', (4, 4)).save(buffer, 'PNG')
    return ComparisonReport(
        title='A <small> run',
        summary='What & why',
        cosine=0.54,
        cosine_constant=0.2,
        codebook_usage=99.6,
        mim_accuracy=11.7,
        mim_accuracy_aggregation=10.9,
        accuracy_constant=2.1,
        num_held_out=100,
        num_classes=10,
        num_test_images=1000,
        scratch=accuracy([39.0, 41.0]),
        pretrained=accuracy([51.0, 53.0]),
        stages=[StageRecord('data', 31), StageRecord('tokenizer', 129)],
        machine={'torch': '2.15'},
        settings=[('tokenizer', 'configs/a.py', {'lr': 0.1})],
        limits=['Little data.'],
        commands=[('Go on', 'python tools/train.py <config>')],
        pictures=[Picture('codes', 'Codes', 'Rows', buffer.getvalue())],
    )


def test_accuracy_states_the_sample_standard_deviation() -> None:
    result = accuracy([39.0, 41.0, 43.0])
    assert (result.mean, result.spread) == (41.0, 2.0)
    assert accuracy([39.0]).spread == 0.0


def test_gain_is_the_difference_of_the_means() -> None:
    report = make_report()
    assert report.gain == pytest.approx(12.0)
    assert dataclasses.replace(report, scratch=accuracy([20.0])).gain == pytest.approx(32.0)


def test_json_holds_the_figures_and_the_names_of_pictures(tmp_path: Path) -> None:
    write_report(make_report(), tmp_path)
    content = json.loads((tmp_path / 'report.json').read_text())
    assert content['gain'] == pytest.approx(12.0)
    assert content['pretrained'] == {
        'per_seed': [51.0, 53.0],
        'mean': 52.0,
        'spread': pytest.approx(2**0.5),
    }
    picture = tmp_path / content['pictures']['codes']
    assert Image.open(picture).size == (4, 4)
    assert not list(tmp_path.rglob('.*.tmp'))


class Tags(HTMLParser):
    """Checks that tags are closed in order; collects attributes."""

    void = frozenset({'meta', 'img', 'br'})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_and_needs_nothing_else(tmp_path: Path) -> None:
    text = write_report(make_report(), tmp_path).read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert not {'script', 'link', 'iframe'} & {tag for tag, _ in tags.seen}
    sources = [attributes['src'] for tag, attributes in tags.seen if tag == 'img']
    assert len(sources) == 1
    assert str(sources[0]).startswith('data:image/png;base64,')
    assert 'http' not in text
    assert 'url(' not in text


def test_page_escapes_and_shows_everything() -> None:
    text = render(make_report())
    assert 'A &lt;small&gt; run' in text
    assert '<small>' not in text
    assert '&lt;config&gt;' in text
    for part in ('52.0 ± 1.4 %', '+12.0 points', '2 min 40 s', 'lr=0.1', 'Little data.', '2.15'):
        assert part in text, part
    assert 'prefers-color-scheme' in text


def test_table_in_the_log_is_aligned(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger('table')
    with caplog.at_level(logging.INFO, 'table'):
        log_table(make_report(), logger)
    (record,) = caplog.records
    *lines, verdict = record.getMessage().splitlines()
    assert verdict.startswith('Pretraining gains 12.0 points over')
    assert lines[0] == 'A <small> run'
    assert re.search(r'Top-1 gain by pretraining +\+12\.0 points  over', lines[-2])

    columns = [line.index('baseline') for line in lines if 'baseline' in line]
    assert len(columns) == 3
    assert len(set(columns)) == 1


@pytest.mark.parametrize(
    ('seconds', 'text'), [(41.6, '42 s'), (185, '3 min 05 s'), (7620, '2 h 07 min'), (0, '0 s')]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_segmentation_is_shown_where_there_is_one(tmp_path: Path) -> None:
    report = make_report()
    assert 'omposites' not in render(report)
    scores = [SegmentationScore('from scratch', 40.0, 50.0, 80.0)]
    scores.append(SegmentationScore('pretrained', 45.25, 55.0, 85.0))
    report = dataclasses.replace(report, segmentation=scores)
    page = render(report)
    assert 'Segmentation of composites' in page and '85.0 %' in page
    assert [row for row in report.rows() if 'omposites' in row[0]] == [
        ('mIoU on composites', '40.0 %', 'from scratch')
    ]
    assert ('', '45.2 %', 'pretrained') in report.rows()
    content = json.loads((write_report(report, tmp_path).parent / 'report.json').read_text())
    assert content['segmentation'][1]['miou'] == 45.25


def kinds(report: Report) -> list[str]:
    return [finding.kind for finding in report.verdict()]


def test_every_accuracy_has_its_baseline() -> None:
    page = render(make_report())
    for part in ('best constant: 0.200', 'chance: 10.0 %', 'always the commonest code', '2.1 %'):
        assert part in page, part
    content = make_report().derived()
    assert content['verdict'] == [finding._asdict() for finding in make_report().verdict()]


def test_a_comparison_says_the_gain_and_only_then_what_is_ill() -> None:
    report = make_report()
    assert kinds(report) == ['good']
    ill = dataclasses.replace(report, cosine=0.07, cosine_constant=0.05, accuracy_constant=9.0)
    assert kinds(ill) == ['good', 'bad', 'bad']
    assert 'class="verdict bad"' in render(ill) and 'hardly learnt anything' in render(ill)
    unclear = dataclasses.replace(report, pretrained=accuracy([39.0, 42.0]))
    assert kinds(unclear) == ['open'] and '<div class="main">' not in render(unclear)
    old = dataclasses.replace(report, cosine_constant=None, accuracy_constant=None)
    assert kinds(old) == ['good'] and 'commonest code' not in render(old)


def test_a_smoke_run_says_that_its_figures_mean_nothing() -> None:
    report = dataclasses.replace(make_report(), smoke=True)
    assert kinds(report) == ['open'] and 'Its figures mean nothing' in render(report)
    assert '<div class="main">' not in render(report)


BARE: dict = dict(
    title='', summary='', stages=[], machine={}, settings=[], limits=[], commands=[], pictures=[]
)


def test_classifiers_against_chance_and_each_other() -> None:
    results = {'fine-tuned': accuracy([60.0, 61.0]), 'from scratch': accuracy([40.0, 41.0])}
    report = ClassifierReport(
        **BARE, results=results, num_images=100, num_classes=4, largest_class=50.0
    )
    chance, gain = (finding.text for finding in report.verdict())
    assert chance.endswith('60.5 % of the images are classified right, and guessing gives 25.0 %.')
    assert gain.startswith('Fine-tuning gains 20.0 points over training from scratch: ')
    assert render(report).count('chance: 25.0 %') == 2


def test_segmentors_against_the_commonest_class() -> None:
    guess = SegmentationScore('baseline: commonest class everywhere', 20.0, 25.0, 80.0)
    report = SegmentorReport(
        **BARE, miou=40.0, macc=50.0, aacc=85.0, guess=guess, num_images=9, num_classes=4
    )
    assert kinds(report) == ['good']
    assert ('', '80.0 %', 'baseline: commonest class everywhere') in report.rows()
    assert kinds(dataclasses.replace(report, miou=21.0)) == ['bad']
