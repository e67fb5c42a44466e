"""Steps with NaN or Inf are skipped and counted; many in a row end the run."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from beitv2_mm.engine import DivergenceGuardHook
from beitv2_mm.engine.errors import DivergenceError
from beitv2_mm.layers import VectorQuantizer


class Fragile(BaseModel):
    """loss = weight * input, plus a term without gradient that may be NaN or Inf."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, extra, data_samples=None, mode='loss'):
        return {'loss': (self.weight * inputs).sum() + extra.sum(), 'accuracy': torch.ones(1)}


class Sample:
    def __init__(self, path):
        self.img_path = path


def collate(batch):
    inputs, extra = zip(*((value, more) for _, value, more in batch), strict=True)
    return dict(
        inputs=torch.tensor(inputs),
        extra=torch.tensor(extra),
        data_samples=[Sample(path) for path, _, _ in batch],
    )


def train(tmp_path, values, extra=None, patience=3, wrapper=None, **settings):
    extra = extra or [0.0] * len(values)
    data = [(f'{i}.png', v, e) for i, (v, e) in enumerate(zip(values, extra, strict=True))]
    model = Fragile()
    runner = Runner(
        model,
        str(tmp_path),
        train_dataloader=DataLoader(data, batch_size=1, collate_fn=collate),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=wrapper(torch.optim.SGD(model.parameters(), lr=1.0))
        if wrapper
        else dict(optimizer=dict(type='AdamW', lr=0.1), **settings),
        default_hooks=dict(checkpoint=None, logger=None),
        custom_hooks=[DivergenceGuardHook(patience)],
        experiment_name=f'{tmp_path.parent.name}_{tmp_path.name}',
        log_level='ERROR',
    )
    return runner


def scalar(runner, name):
    return runner.message_hub.get_scalar(f'train/{name}').data[0].tolist()


NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize('clip', [None, dict(max_norm=1.0)])
@pytest.mark.parametrize('bad', [NAN, INF, -INF])
def test_a_bad_gradient_changes_neither_weights_nor_optimizer(tmp_path, bad, clip):
    runner = train(tmp_path, [1.0, bad, 2.0], clip_grad=clip)
    runner.train()
    good = train(tmp_path / 'good', [1.0, 2.0], clip_grad=clip)
    good.train()
    assert torch.equal(runner.model.weight, good.model.weight)
    ours, theirs = (r.optim_wrapper.optimizer.state_dict()['state'][0] for r in (runner, good))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert scalar(runner, 'skipped_steps') == [0, 1, 1]
    assert scalar(runner, 'grad_norm')[0] == 1.0


def test_a_bad_loss_with_a_good_gradient_counts_too(tmp_path):
    runner = train(tmp_path, [1.0] * 3, extra=[0.0, NAN, 0.0])
    runner.train()
    assert scalar(runner, 'skipped_steps') == [0, 1, 1]


def test_one_bad_part_spoils_the_whole_accumulated_step(tmp_path):
    runner = train(tmp_path, [1.0, 1.0, NAN, 1.0, 1.0, 1.0], accumulative_counts=2)
    runner.train()
    good = train(tmp_path / 'good', [1.0] * 4, accumulative_counts=2)
    good.train()
    assert torch.equal(runner.model.weight, good.model.weight)
    assert scalar(runner, 'skipped_steps') == [0, 1, 1]


def test_stops_after_so_many_in_a_row_and_says_what_they_were(tmp_path):
    runner = train(tmp_path, [1.0, NAN, 1.0, NAN, INF, NAN, 1.0])
    with pytest.raises(DivergenceError, match=r'3 steps in a row, the last one iteration 6'):
        runner.train()
    report = json.loads((tmp_path / 'divergence_rank0.json').read_text())
    assert [step['files'] for step in report['skipped']] == [['3.png'], ['4.png'], ['5.png']]
    assert [step['iteration'] for step in report['skipped']] == [4, 5, 6]
    assert report['skipped'][1]['losses'] == {'loss': INF}
    assert report['weights_and_buffers_not_finite'] == []
    assert runner.model.weight.isfinite().all()


class ScaledOnCpu(AmpOptimWrapper):
    """AmpOptimWrapper without the check that refuses to build it without a GPU."""

    def __init__(self, optimizer):
        OptimWrapper.__init__(self, optimizer)
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=1024.0, growth_interval=100)
        self.cast_dtype = torch.bfloat16


def test_steps_that_a_grad_scaler_leaves_out_count(tmp_path):
    runner = train(tmp_path, [1.0, INF, 1.0, 1.0], wrapper=ScaledOnCpu)
    runner.train()
    assert scalar(runner, 'skipped_steps') == [0, 1, 1, 1]
    assert runner.model.weight.item() == 1 - 3
    assert scalar(runner, 'loss_scale') == [512.0]
    with pytest.raises(DivergenceError):
        train(tmp_path / 'b', [INF] * 4, wrapper=ScaledOnCpu).train()
    report = json.loads(Path(tmp_path / 'b/divergence_rank0.json').read_text())
    assert [step['loss_scale'] for step in report['skipped']] == [512.0, 256.0, 128.0]


def test_latents_that_are_no_numbers_leave_the_codebook_alone():
    quantizer = VectorQuantizer(8, 4, kmeans_init=False)
    before = quantizer.embedding.weight.clone()
    latents = torch.randn(2, 3, 4)
    latents[0, 0, 0] = NAN
    quantizer.train()(latents)
    torch.testing.assert_close(quantizer.embedding.weight, before)
    assert quantizer.cluster_size.isfinite().all()


def test_patience_is_checked():
    with pytest.raises(ValueError, match='patience is 0'):
        DivergenceGuardHook(0)
