from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import LoggerHook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from beitv2_mm.engine import CodebookHook


class Tokenizer(BaseModel):
    """Counts of 4 codes; the first ``used`` of them are in use."""

    def __init__(self, used: int) -> None:
        super().__init__()
        self.quantize = torch.nn.Module()
        self.quantize.num_codes = 4
        self.quantize.register_buffer('cluster_size', (torch.arange(4) < used).float())
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples=None, mode='loss'):
        return {'loss': self.weight.sum()}


def stand_in(model):
    warnings = []
    runner = SimpleNamespace(
        model=model,
        iter=0,
        message_hub=MessageHub('test_codebook_hook'),
        logger=SimpleNamespace(warning=warnings.append),
    )
    return runner, warnings


def step(hook, runner, count=1):
    for _ in range(count):
        hook.after_train_iter(runner, runner.iter)
        runner.iter += 1


def test_scalars():
    runner, warnings = stand_in(Tokenizer(used=2))
    hook = CodebookHook(interval=5)
    step(hook, runner, 4)
    assert not runner.message_hub.log_scalars
    step(hook, runner)
    assert runner.message_hub.get_scalar('train/codebook_usage_ema').current() == 50
    perplexity = runner.message_hub.get_scalar('train/codebook_perplexity_ema').current()
    assert perplexity == pytest.approx(2)
    assert not warnings


def test_warns_of_a_collapse_once_until_recovered():
    runner, warnings = stand_in(Tokenizer(used=1))
    hook = CodebookHook(interval=1, min_usage=30, patience=10)
    step(hook, runner, 9)
    assert not warnings  # it has not had time to fill
    step(hook, runner, 20)
    assert len(warnings) == 1
    assert 'collapsed: 25.0 % of its 4 codes' in warnings[0]
    assert 'revival of dead codes' in warnings[0]
    runner.model.quantize.cluster_size.fill_(1)
    step(hook, runner)
    runner.model.quantize.cluster_size[1:] = 0
    step(hook, runner, 5)
    assert len(warnings) == 2


def test_nearly_dead_codes_do_not_count_as_used():
    runner, _ = stand_in(Tokenizer(used=4))
    runner.model.quantize.cluster_size[0] = 0.001
    step(CodebookHook(interval=1), runner)
    assert runner.message_hub.get_scalar('train/codebook_usage_ema').current() == 75


def test_looks_inside_a_wrapped_model(monkeypatch):
    runner, _ = stand_in(SimpleNamespace(module=Tokenizer(used=3)))
    monkeypatch.setattr('beitv2_mm.engine.unwrap.is_model_wrapper', lambda model: True)
    step(CodebookHook(interval=1), runner)
    assert runner.message_hub.get_scalar('train/codebook_usage_ema').current() == 75


def test_bad_settings():
    with pytest.raises(ValueError, match=r'min_usage is 300.*percentage'):
        CodebookHook(min_usage=300)


def test_reaches_the_log_of_a_runner(tmp_path):
    runner = Runner(
        Tokenizer(used=2),
        str(tmp_path),
        train_dataloader=DataLoader([dict(inputs=torch.zeros(1))] * 4),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        default_hooks=dict(logger=dict(type=LoggerHook, interval=2), checkpoint=None),
        custom_hooks=[dict(type='beitv2_mm.CodebookHook', interval=2)],
        experiment_name='codebook_hook',
    )
    runner.train()
    scalars = next(tmp_path.glob('*/vis_data/scalars.json')).read_text()
    assert '"codebook_usage_ema": 50.0' in scalars
    assert '"codebook_perplexity_ema": 2.0' in scalars
