"""Every subcommand at a tiny size: rows and pictures, no claims about speed."""

import io
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from PIL import Image
from rich.console import Console
from torch import nn

from beitv2_mm.benchmark import NotTheSameError, Settings, measure
from beitv2_mm.benchmark.backbone import Backbone
from beitv2_mm.benchmark.feed import Feed
from beitv2_mm.benchmark.memory import peak_allocated
from beitv2_mm.benchmark.pretrain import Pretrain
from beitv2_mm.benchmark.products import Products
from beitv2_mm.benchmark.segment import Segment
from beitv2_mm.benchmark.work import OURS, Step, Work
from beitv2_mm.benchmark.workers import Loader
from beitv2_mm.layers.arch import ARCHS, Arch
from beitv2_mm.layers.nearest_codes import nearest_codes
from beitv2_mm.models import BEiTV2Pretrainer
from support.list_loader import ListLoader, family_memory_of
from support.tools import run_tool

pytestmark = pytest.mark.cpu_only(reason='it measures the CPU, unless told otherwise')

CONFIGS = Path(__file__).parents[2] / 'configs'
TINY = ['--arch', 'tiny', '--image-size', '64', '--batch-size', '1', '--num-codes', '64']
SMALL = ['--threads', '1', '--index-size', '1000', '--workers', '1', '--rounds', '1']
PEERS = dict(
    backbone={'timm', 'mmpretrain'},
    pretrain={'mmpretrain'},
    tokenizer={'mmpretrain'},
    segment={'mmseg'},
    data={'beitv2_mm, reference order', 'mmpretrain'},
    memory={'mmpretrain'},
    scaling={'timm', 'mmpretrain'},
)
WORKS = dict(backbone=2, pretrain=1, tokenizer=1, segment=2, data=1, memory=1, scaling=7)
FIELDS = {'work', 'implementation', 'median_seconds', 'peak_memory_mb', 'share_of_limit'}
LINUX = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='needs /proc')


@pytest.fixture(autouse=True)
def small_work(monkeypatch):
    """The smallest network is half as deep, and there are few images."""
    monkeypatch.setitem(ARCHS, 'tiny', Arch(96, 6, 3))
    monkeypatch.setattr('beitv2_mm.benchmark.data.COUNT', 4)


@pytest.mark.parametrize('suite', PEERS)
def test_subcommand(suite, tmp_path, capsys):
    picture, rows = tmp_path / 'rows.png', tmp_path / 'rows.json'
    files = ['--json', str(rows), '--plot', str(picture)]
    rounds = ['--rounds', '2'] if suite == 'tokenizer' else []  # the quickest: it takes turns
    run_tool('benchmark', suite, *TINY, *SMALL, *files, *rounds)
    rows = json.loads(rows.read_text())
    assert all(set(row) >= FIELDS for row in rows)
    assert len({row['work'] for row in rows}) == WORKS[suite]
    assert {row['implementation'] for row in rows} == {OURS} | PEERS[suite]
    for row in rows:
        assert row['median_seconds'] > 0 and row['speed_ratio'] > 0
        assert 'PyTorch' in row['machine'] and 'fp32' in row['machine']
        assert (row['share_of_limit'] is None) == (suite in ('data', 'memory'))
        if sys.platform.startswith('linux'):
            assert (row['peak_memory_mb'] is None) == (suite == 'data')
        if row['implementation'] == OURS:
            assert row['speed_ratio'] == 1
    with Image.open(picture) as image:
        assert image.width > 500
    shown = capsys.readouterr().out
    assert all(name in shown for name in PEERS[suite])
    assert ('taken by the model' in shown and '1 worker' in shown) == (suite == 'data')


def test_feed_says_how_many_workers_are_enough():
    lines = io.StringIO()
    Console(file=lines, width=100).print(Feed({1: 300.0, 4: 900.0}, 1000.0, 128).table())
    shown = ' '.join(lines.getvalue().split())
    assert (
        '1 worker │ 300.0 │ 1000.0 │ 30%' in shown and '4 workers │ 900.0 │ 1000.0 │ 90%' in shown
    )
    assert 'at the rate of 1: 4' in shown


def test_half_precision_and_images_of_ones_own(
    tmp_path,
):
    rows = tmp_path / 'rows.json'
    run_tool('benchmark', 'backbone', *TINY, *SMALL, '--precision', 'bf16', '--json', str(rows))
    assert all('bf16' in row['machine'] for row in json.loads(rows.read_text()))
    Image.new('RGB', (80, 70)).save(tmp_path / 'a.jpg')
    run_tool('benchmark', 'data', *TINY, *SMALL, '--images', str(tmp_path), '--json', str(rows))
    assert str(tmp_path) in json.loads(rows.read_text())[0]['work']
    with pytest.raises(SystemExit, match='nowhere'):
        run_tool('benchmark', 'data', *TINY, *SMALL, '--images', str(tmp_path / 'nowhere'))


class Different(Work):
    """Two that do not do the same."""

    implementations = (OURS, 'timm')

    @property
    def name(self):
        return 'sum'

    def build(self, implementation):
        return Step(lambda: torch.tensor([1.0, 2.0 if implementation == OURS else 2.1]))


def test_different_results_are_refused():
    settings = Settings(rounds=1)
    with pytest.raises(NotTheSameError, match='sum: results differ'):
        measure(Different(settings))
    measure(Different(replace(settings, precision='bf16')))


@pytest.mark.parametrize('work', [Backbone, Segment])
def test_a_changed_weight_is_noticed(work):
    """The comparison before the timing can fail: it is of outputs that depend on every block."""
    settings = Settings(arch='tiny', rounds=1)
    one = work(settings, 64, 1)
    names = one.available()[:2]
    steps = {name: one.build(name) for name in names}
    one.share_weights({name: step.module for name, step in steps.items()})
    one.compare(*(step.run() for step in steps.values()))
    module = steps[OURS].module
    backbone = getattr(module, 'backbone', module)
    nn.init.normal_(backbone.blocks[3].mlp.fc2.weight)
    with pytest.raises(NotTheSameError):
        one.compare(*(step.run() for step in steps.values()))


def test_peak_memory_is_what_is_held_at_once():
    def run():
        for _ in range(3):
            held = torch.ones(4, 2**20)  # 16 MiB
            del held
        before = torch.ones(2**20)  # 4 MiB
        return before + torch.ones(2**20)

    assert 12 <= peak_allocated(run, 'cpu') < 16.1
    assert peak_allocated(lambda: None, 'cpu') == 0


@LINUX
def test_loader_memory_does_not_grow_with_the_index():
    """Six workers over an index need little more than one; a Python list is copied by each."""
    settings = Settings(index_size=100_000)
    loaders = Loader(settings, 1), Loader(settings, 6), ListLoader(settings, 6)
    # In a new process: what earlier tests freed in this one would hold a part of the lists.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
        before, one, many, plain = pool.submit(family_memory_of, *loaders).result()
    assert (many - one) / 5 < 20  # MiB a worker
    assert plain > many + 20
    assert (before + many) / (before + one) < 1.3


def test_the_measured_step_is_that_of_the_recipe():
    recipe = Config.fromfile(CONFIGS / 'pretrain/beitv2_base_16xb128_300e_in1k.py')
    model = Pretrain(Settings(arch='tiny'), 64, 1).build(OURS).module
    assert isinstance(model, BEiTV2Pretrainer) and model.neck is not None
    assert {block.with_cp for block in model.backbone.blocks} == {recipe.model.backbone.with_cp}
    assert {block.with_cp for block in model.neck.cls_pt_layers} == {recipe.model.neck.with_cp}
    assert recipe.optim_wrapper.optimizer.fused


def test_the_limit_is_that_of_the_products_of_the_run():
    """Shapes, layouts and number; fused attention and the search for codes count too."""
    x, weight = torch.randn(6, 4), torch.randn(4, 5, requires_grad=True)
    heads = torch.randn(1, 2, 3, 8)

    def run():
        for _ in range(2):
            (x @ weight).sum().backward()
        with torch.no_grad():
            torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)
        return 'done'

    products = Products(run, 'cpu')
    assert products.result == 'done'
    operands = {
        tuple((o.shape, o.stride) for o in args): n for (_, args), n in products.calls.items()
    }
    backward = ((4, 6), (1, 4)), ((6, 5), (0, 0))  # of a sum: one number, expanded
    assert operands == {(((6, 4), (4, 1)), ((4, 5), (5, 1))): 2, backward: 2}
    attention = 2 * 2 * 2 * 3 * 3 * 8
    assert products.flops == 4 * 2 * 6 * 4 * 5 + attention
    assert products.seconds() > 0

    codes = Products(lambda: nearest_codes(torch.randn(6, 4), torch.randn(5, 4)), 'cpu')
    assert codes.flops == 2 * 6 * 4 * 5 and codes.all_by_recorded == 1
    assert Products(lambda: None, 'cpu').seconds() == 0
