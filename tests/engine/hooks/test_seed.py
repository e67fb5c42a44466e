import random
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.datasets.transforms import PackInputs

from beitv2_mm.datasets import BlockwiseMask, ImageFolder, LoadImageFromFile
from beitv2_mm.datasets.seeding import seed_generators
from beitv2_mm.engine import (
    AtomicCheckpointHook,
    EpochSeedHook,
    ResumableEpochBasedTrainLoop,
    ResumableIterBasedTrainLoop,
    ResumableLoader,
)

CIFAR = str(Path(__file__).parents[2] / 'data' / 'cifar10')
PIPELINE = [
    dict(type=LoadImageFromFile),
    dict(type=BlockwiseMask, patch_size=4, num_masked=26, min_block=4),
    dict(type=PackInputs),
]


def loader_config(workers=2, sampler='DefaultSampler', batch_size=2, **settings):
    return dict(
        dataset=dict(type=ImageFolder, data_root=CIFAR, pipeline=PIPELINE),
        sampler=dict(type=sampler, shuffle=False),
        batch_size=batch_size,
        num_workers=workers,
        **settings,
    )


def same(a, b):
    """Share of masks that are equal."""
    return (a == b).all(-1).all(-1).float().mean().item()


def test_all_generators_are_seeded():
    def draw(*numbers):
        seed_generators(*numbers)
        return random.random(), np.random.random(), torch.rand(1).item()

    first = draw(1, 2, 3)
    assert first == draw(1, 2, 3)
    assert not set(first) & set(draw(1, 3, 2))


class Noisy(BaseModel):
    """Its step depends on the images, the masks and PyTorch's random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(8, 8))

    def forward(self, inputs, data_samples=None, mode='loss'):
        masks = torch.stack([sample.mask for sample in data_samples])
        pixels = torch.stack(inputs).float().mean() / 255
        noise = torch.rand(8, 8)
        return {'loss': ((self.weight - masks.float() * pixels - noise) ** 2).sum()}


class Recorder(Hook):
    def __init__(self, masks) -> None:
        self.masks = masks

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.masks += [sample.mask for sample in data_batch['data_samples']]


class Interrupt(Hook):
    """Ends the run like a kill: nothing runs afterwards, and no checkpoint is written."""

    priority = 'LOWEST'

    def __init__(self, after) -> None:
        self.after = after

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.after:
            raise KeyboardInterrupt


def train(work_dir, train_cfg, loader, interval, resume=False, hooks=(), **wrapper):
    """Trains; returns the final weight and all masks seen."""
    masks = []
    runner = Runner(
        Noisy(),
        str(work_dir),
        train_dataloader=loader,
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1), **wrapper),
        train_cfg=train_cfg,
        param_scheduler=dict(type='CosineAnnealingLR', T_max=9, by_epoch=False),
        default_hooks=dict(
            logger=None,
            checkpoint=dict(type=AtomicCheckpointHook, interval=interval, by_epoch=False),
        ),
        custom_hooks=[EpochSeedHook(), Recorder(masks), EMAHook(), *hooks],
        randomness=dict(seed=7),
        resume=resume,
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}_{resume}',
        log_level='ERROR',
    )
    try:
        runner.train()
    except KeyboardInterrupt:
        next(h for h in runner.hooks if isinstance(h, AtomicCheckpointHook))._wait(runner)
    return runner.model.weight.detach().clone(), torch.stack(masks)


EPOCHS = dict(type=ResumableEpochBasedTrainLoop, max_epochs=3)
ITERATIONS = dict(type=ResumableIterBasedTrainLoop, max_iters=12)


@pytest.mark.parametrize('killed', [2, 4, 7, 10])
@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('persistent', [False, True])
def test_resumed_in_mid_epoch_equals_uninterrupted(
    tmp_path, whole_run, workers, killed, persistent
):
    """Equal bit for bit; the masks are the same with any number of workers."""
    if (persistent and not workers) or (killed not in (4, 7) and workers):
        pytest.skip('covered')
    loader = epoch_loader(workers, persistent)
    whole, masks = whole_run
    train(tmp_path / 'parts', EPOCHS, loader, 2, hooks=[Interrupt(killed)])
    parts, rest = train(tmp_path / 'parts', EPOCHS, loader, 2, resume=True)
    assert len(masks) == 60 and len(rest) == 60 - killed // 2 * 2 * 5
    assert torch.equal(rest, masks[-len(rest) :])
    assert torch.equal(parts, whole)
    assert same(masks[:20], masks[20:40]) == 0


def epoch_loader(workers, persistent=False):
    loader = loader_config(workers, batch_size=5, drop_last=True, persistent_workers=persistent)
    loader['sampler']['shuffle'] = True
    return loader


@pytest.fixture(scope='module')
def whole_run(tmp_path_factory):
    return train(tmp_path_factory.mktemp('runs') / 'whole', EPOCHS, epoch_loader(0), 2)


def test_gradients_that_wait_for_more_are_not_lost(tmp_path):
    """A checkpoint that is due between two optimizer steps is written after the second."""
    loader = epoch_loader(0)
    settings = dict(accumulative_counts=3)
    whole, _ = train(tmp_path / 'whole', EPOCHS, loader, 1, **settings)
    train(tmp_path / 'parts', EPOCHS, loader, 1, hooks=[Interrupt(8)], **settings)
    assert {file.name for file in (tmp_path / 'parts').glob('*.pth')} == {
        'iter_3.pth',
        'iter_6.pth',
    }
    parts, rest = train(tmp_path / 'parts', EPOCHS, loader, 1, resume=True, **settings)
    assert len(rest) == 30 and torch.equal(parts, whole)


@pytest.mark.parametrize('workers', [0, 1])
def test_resumed_at_an_iteration_equals_uninterrupted(tmp_path, workers, monkeypatch):
    loader = loader_config(workers, 'InfiniteSampler', 5)
    whole, masks = train(tmp_path / 'whole', ITERATIONS, loader, 3)
    train(tmp_path / 'parts', ITERATIONS, loader, 3, hooks=[Interrupt(8)])
    read = []
    load = ImageFolder.prepare_data
    monkeypatch.setattr(
        ImageFolder, 'prepare_data', lambda self, i: read.append(i) or load(self, i)
    )
    parts, rest = train(tmp_path / 'parts', ITERATIONS, loader, 3, resume=True)
    assert torch.equal(parts, whole)
    assert torch.equal(rest, masks[30:])
    assert workers or len(read) == 30  # what was trained on before is not loaded again


@pytest.mark.parametrize('killed', [None, 4])
@pytest.mark.parametrize('kind', ['epochs', 'iterations'])
def test_workers_end_with_the_training(tmp_path, kind, killed):
    """However it ends: those that the garbage collector finds would be waited for."""
    before = set(active_children())
    hooks = [Interrupt(killed)] if killed else []
    if kind == 'epochs':
        train(tmp_path / 'run', EPOCHS, epoch_loader(2, persistent=True), 99, hooks=hooks)
    else:
        train(tmp_path / 'run', ITERATIONS, loader_config(), 99, hooks=hooks)
    assert set(active_children()) == before


def test_an_epoch_of_another_length_is_repeated(tmp_path):
    train(tmp_path / 'parts', EPOCHS, epoch_loader(0), 3, hooks=[Interrupt(7)])
    loader = epoch_loader(0) | dict(batch_size=10)
    said = []

    class Listen(Hook):
        def before_train(self, runner):
            runner.logger.warning = said.append

    _, rest = train(tmp_path / 'parts', EPOCHS, loader, 3, resume=True, hooks=[Listen()])
    assert len(rest) == 40 and 'another batch size' in said[0]


def test_warns_of_a_loop_that_does_not_seed_the_samples():
    loader = Runner.build_dataloader(loader_config(), seed=1)
    warnings = []
    runner = SimpleNamespace(
        train_loop=SimpleNamespace(dataloader=loader),
        logger=SimpleNamespace(warning=warnings.append),
    )
    EpochSeedHook().before_train(runner)
    assert len(warnings) == 1 and 'ResumableEpochBasedTrainLoop' in warnings[0]
    runner.train_loop.dataloader = ResumableLoader(loader, seed=1)
    EpochSeedHook().before_train(runner)
    assert len(warnings) == 1
