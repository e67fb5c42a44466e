import random
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.datasets.transforms import PackInputs

from beitv2_mm.datasets import BlockwiseMask, ImageFolder, LoadImageFromFile, epoch_worker_init
from beitv2_mm.datasets.seeding import seed_generators
from beitv2_mm.engine import EpochSeedHook

CIFAR = str(Path(__file__).parents[1] / 'data' / 'cifar10')
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


def epoch_masks(monkeypatch, seed, epoch, rank, worker_init_fn):
    """(workers, masks, 8, 8): what each worker draws in an epoch that the hook has seeded."""
    config = loader_config(persistent_workers=False)
    if worker_init_fn:
        config['worker_init_fn'] = dict(type=worker_init_fn)
    loader = Runner.build_dataloader(config, seed=seed)
    monkeypatch.setenv('RANK', str(rank))
    seed_generators(seed, epoch, rank)
    batches = [torch.stack([s.mask for s in batch['data_samples']]) for batch in loader]
    return torch.stack([torch.cat(batches[0::2]), torch.cat(batches[1::2])])


def same(a, b):
    """Share of masks that are equal."""
    return (a == b).all(-1).all(-1).float().mean().item()


def test_peer_bug_mask_seeds_repeat_across_workers(monkeypatch):
    first = epoch_masks(monkeypatch, 1, 0, 0, epoch_worker_init)
    assert same(first[0], first[1]) == 0
    assert same(first, epoch_masks(monkeypatch, 1, 0, 0, epoch_worker_init)) == 1
    assert same(first, epoch_masks(monkeypatch, 1, 1, 0, epoch_worker_init)) == 0  # epoch
    assert same(first, epoch_masks(monkeypatch, 1, 0, 1, epoch_worker_init)) == 0  # rank
    assert same(first, epoch_masks(monkeypatch, 2, 0, 0, epoch_worker_init)) == 0  # seed


def test_peer_bug_default_worker_seeds_repeat_in_every_epoch(monkeypatch):
    a, b = (epoch_masks(monkeypatch, 1, epoch, 0, None) for epoch in (0, 1))
    assert same(a, b) == 1  # mmengine's default; the hook warns of it, see below


def test_ranks_differ_without_the_hook_too(monkeypatch):
    """Iteration-based loops start their workers before any hook runs."""
    masks = []
    for rank in (0, 1):
        monkeypatch.setenv('RANK', str(rank))
        torch.manual_seed(0)
        loader = Runner.build_dataloader(
            loader_config(worker_init_fn=dict(type=epoch_worker_init)), seed=0
        )
        masks.append(torch.stack([s.mask for s in next(iter(loader))['data_samples']]))
    assert same(*masks) == 0


def test_all_generators_are_seeded():
    def draw(*numbers):
        seed_generators(*numbers)
        return random.random(), np.random.random(), torch.rand(1).item()

    first = draw(1, 2, 3)
    assert first == draw(1, 2, 3)
    assert not set(first) & set(draw(1, 3, 2))
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    seed_generators(1, torch_only=True)
    assert np.random.random() == expected


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


def train(work_dir, train_cfg, loader, interval, resume=False):
    """Trains; returns the final weight and all masks seen."""
    masks = []
    runner = Runner(
        Noisy(),
        str(work_dir),
        train_dataloader=loader,
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        train_cfg=train_cfg,
        default_hooks=dict(
            logger=None,
            checkpoint=dict(
                type='CheckpointHook', interval=interval, by_epoch=train_cfg['by_epoch']
            ),
        ),
        custom_hooks=[EpochSeedHook(), Recorder(masks)],
        randomness=dict(seed=7),
        resume=resume,
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}_{resume}',
        log_level='ERROR',
    )
    runner.train()
    return runner.model.weight.detach().clone(), torch.stack(masks)


@pytest.mark.parametrize('workers', [0, 2])
def test_resumed_at_an_epoch_equals_uninterrupted(tmp_path, workers):
    loader = loader_config(
        workers, batch_size=5, drop_last=True, worker_init_fn=dict(type=epoch_worker_init)
    )
    loader['sampler']['shuffle'] = True
    cfg = dict(by_epoch=True, max_epochs=3)
    whole, masks = train(tmp_path / 'whole', cfg, loader, 1)
    train(tmp_path / 'parts', {**cfg, 'max_epochs': 2}, loader, 1)
    parts, rest = train(tmp_path / 'parts', cfg, loader, 1, resume=True)
    assert torch.equal(parts, whole)
    assert torch.equal(rest, masks[40:])
    assert same(masks[:20], masks[20:40]) == 0


@pytest.mark.parametrize('workers', [0, 1])
def test_resumed_at_an_iteration_equals_uninterrupted(tmp_path, workers):
    loader = loader_config(
        workers, 'InfiniteSampler', 5, worker_init_fn=dict(type=epoch_worker_init)
    )
    cfg = dict(by_epoch=False, max_iters=7)
    whole, masks = train(tmp_path / 'whole', cfg, loader, 3)
    train(tmp_path / 'parts', {**cfg, 'max_iters': 3}, loader, 3)
    parts, rest = train(tmp_path / 'parts', cfg, loader, 3, resume=True)
    assert torch.equal(parts, whole)
    assert torch.equal(rest, masks[15:])


def stand_in(loader):
    """A runner as far as the hooks look at it, and the list of its warnings."""
    warnings = []
    runner = SimpleNamespace(
        train_loop=SimpleNamespace(dataloader=loader),
        logger=SimpleNamespace(warning=warnings.append),
    )
    return runner, warnings


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({}, 'same seeds in each epoch.*epoch_worker_init'),
        ({'persistent_workers': True}, 'persistent_workers=True.*resumed run'),
        ({'worker_init_fn': dict(type=epoch_worker_init)}, None),
    ],
)
def test_warns_of_loaders_that_defeat_it(settings, message):
    loader = Runner.build_dataloader(loader_config(**settings), seed=1)
    runner, warnings = stand_in(loader)
    EpochSeedHook().before_train(runner)
    if message is None:
        assert not warnings
    else:
        assert len(warnings) == 1
        assert re.search(message, warnings[0])
