"""DDP and FSDP on two gloo processes against one process with the double batch, over 20 steps."""

import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

import strategy_ranks
from strategy_ranks import RECIPES
from tiny import teacher_config


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Folder with the checkpoints; losses of one process; mean losses of two."""
    folder = tmp_path_factory.mktemp('strategies')
    teacher_config(folder)  # written once, before two processes would
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    mp.spawn(strategy_ranks.process, args=(port, folder), nprocs=2)
    ranks = [torch.load(folder / f'rank{rank}.pth', weights_only=True) for rank in (0, 1)]
    both = {name: torch.tensor([r[name] for r in ranks]).mean(0) for name in ranks[0]}
    single = {
        name: torch.tensor(strategy_ranks.train(strategy_ranks.recipe(name, folder, 1, False)))
        for name in RECIPES
    }
    return folder, single, both


@pytest.mark.parametrize('kind', ['ddp', 'fsdp'])
@pytest.mark.parametrize('name', RECIPES)
def test_two_processes_have_the_losses_of_one(runs, name, kind):
    _, single, both = runs
    assert len(single[name].unique()) == 20
    torch.testing.assert_close(both[f'{name}_{kind}'], single[name], rtol=1e-4, atol=1e-5)


def checkpoint(folder: Path, run: str) -> dict:
    return torch.load(folder / run / 'iter_20.pth', weights_only=True)


@pytest.mark.parametrize('name', RECIPES)
def test_checkpoints_of_sharded_runs_are_whole(runs, name):
    folder, _, _ = runs
    plain, sharded = (
        checkpoint(folder, f'{name}_{kind}')['state_dict'] for kind in ('ddp', 'fsdp')
    )
    assert plain.keys() == sharded.keys()
    for key, value in plain.items():
        torch.testing.assert_close(sharded[key], value, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.xfail(
    reason='same loss, other gradients in the first step after a resume', strict=True
)
def test_sharded_run_resumed_in_mid_epoch_equals_uninterrupted(runs):
    folder, _, both = runs
    assert torch.equal(both['mim_fsdp_resumed'][-10:], both['mim_fsdp'][-10:])
    whole, resumed = (checkpoint(folder, f'mim_fsdp{end}') for end in ('', '_resumed'))
    for key, value in whole['state_dict'].items():
        assert torch.equal(resumed['state_dict'][key], value), key
    assert whole['optimizer']['state'].keys() == resumed['optimizer']['state'].keys()


def test_decay_is_decided_before_parameters_are_flat_pieces(runs):
    """Norms and biases have none, matrices do, as without sharding."""
    folder, _, _ = runs
    groups = checkpoint(folder, 'mim_fsdp')['optimizer']['param_groups']
    decay = {name: group['weight_decay'] for group in groups for name in group['params']}
    assert decay['backbone.blocks.0.mlp.fc1.weight'] == 0.05
    assert decay['backbone.blocks.0.mlp.fc1.bias'] == decay['backbone.blocks.0.norm1.weight'] == 0
