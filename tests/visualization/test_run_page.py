"""The page of a run: names that people use, no single dots."""

import re
from pathlib import Path

import pytest
from mmengine.visualization import LocalVisBackend

from beitv2_mm.visualization import run_page
from beitv2_mm.visualization.names import NAMES, is_percent, name_of, value_of

pytestmark = pytest.mark.cpu_only(reason='pages, nothing is computed')


def write_run(work_dir: Path, steps: int, **more: float) -> None:
    backend = LocalVisBackend(str(work_dir / 't/vis_data'))
    for step in range(1, steps + 1):
        losses = dict(loss=8 / step, loss_main=4 / step, loss_aggregation=4 / step)
        scalars = dict(lr=0.1 / step, base_lr=0.1 / step, accuracy_main=step, skipped_steps=0)
        backend.add_scalars({**losses, **scalars, 'epoch': 1, **more}, step=step)
    backend.add_scalars(dict(accuracy_main=9.0, accuracy_constant=2.0, my_score=0.5), step=1)


def text_of(page: Path) -> str:
    return re.sub('<[^>]+>', ' ', page.read_text().split('</style>')[1])


def test_no_tags_and_tables_in_place_of_dots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path, steps=5)
    drawn: list = []
    monkeypatch.setattr(run_page, 'plot_curves', lambda panels: drawn.extend(panels) or b'')
    text = text_of(run_page.write_run_page(tmp_path))
    for tag in ('accuracy_main', 'my_score', 'skipped_steps', 'val/', 'base_lr'):
        assert tag not in text
    assert re.search(r'accuracy on masked patches, main branch\s+9.0 %\s+epoch 1', text)
    assert re.search('my score +0.5 +epoch 1', text) and '5 steps so far' in text
    assert re.search('steps left out because of NaN or Inf +0 +step 5', text)
    assert [panel.title for panel in drawn] == [
        'Loss', 'Loss on masked patches', 'Accuracy', 'Learning rate'
    ]  # fmt: skip
    assert list(drawn[1].curves) == ['main branch', 'aggregation branch']
    assert list(drawn[3].curves) == ['learning rate']  # of equal rates one
    assert all(len(steps) > 1 for panel in drawn for steps, _ in panel.curves.values())


def test_a_run_that_logged_once_has_tables_and_no_curves(tmp_path: Path) -> None:
    write_run(tmp_path, steps=1, codebook_usage_ema=100.0)
    page = run_page.write_run_page(tmp_path)
    assert 'data:image' not in page.read_text()
    assert re.search(r'codes in use, running mean +100.0 % +step 1', text_of(page))


def test_names() -> None:
    assert name_of('val/accuracy_main') == NAMES['accuracy_main']
    assert name_of('decode_head.loss_dice') == 'decode head, loss dice'
    assert value_of('val/mIoU', 12.345) == '12.3 %' and value_of('cosine', 0.5) == '0.5'
    assert is_percent('codebook_usage_ema') and not is_percent('codebook_perplexity_ema')
