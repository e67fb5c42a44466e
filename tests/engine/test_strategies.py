"""DDP and FSDP on two gloo processes against one process with the double batch, over 20 steps."""

from pathlib import Path

import pytest
import torch

from support.differences import differences
from support.strategy_ranks import RECIPES, SAVED, two_processes
from support.tiny import teacher_config

pytestmark = pytest.mark.forks(reason='several processes over gloo')

KINDS = ('ddp', 'fsdp', 'ddp_accumulated')
AGAIN = [*((name, 'fsdp') for name in RECIPES), ('mim', 'ddp_accumulated')]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Returns the folder with the checkpoints, and the losses."""
    folder = tmp_path_factory.mktemp('strategies')
    teacher_config(folder)  # written once, before two processes would
    kinds = ('single', 'single_accumulated', *KINDS)
    return folder, two_processes(folder, [(name, k) for name in RECIPES for k in kinds], AGAIN)


def checkpoint(folder: Path, run: str) -> dict:
    return torch.load(folder / run / 'iter_20.pth', weights_only=True)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', RECIPES)
def test_two_processes_have_the_losses_of_one(runs, name, kind):
    _, losses = runs
    expected = losses[f'{name}_{kind}'.replace('ddp', 'single').replace('fsdp', 'single')]
    assert len(expected.unique()) == 20
    torch.testing.assert_close(losses[f'{name}_{kind}'], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', RECIPES)
def test_accumulated_gradients_give_the_weights_of_one_process(runs, name):
    """The recipes set static_graph, which PyTorch cannot do while gradients are accumulated."""
    folder, _ = runs
    one, two = (
        checkpoint(folder, f'{name}_{kind}_accumulated')['state_dict'] for kind in ('single', 'ddp')
    )
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize('name', RECIPES)
def test_checkpoints_of_sharded_runs_are_whole(runs, name):
    folder, _ = runs
    plain, sharded = (checkpoint(folder, f'{name}_{kind}') for kind in ('ddp', 'fsdp'))
    assert plain['state_dict'].keys() == sharded['state_dict'].keys()
    for key, value in plain['state_dict'].items():
        torch.testing.assert_close(sharded['state_dict'][key], value, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize(('name', 'kind'), AGAIN)
def test_run_resumed_in_mid_epoch_equals_uninterrupted(runs, name, kind):
    folder, losses = runs
    assert torch.equal(losses[f'{name}_{kind}_resumed'][SAVED:], losses[f'{name}_{kind}'][SAVED:])
    whole, again = (checkpoint(folder, f'{name}_{kind}{end}') for end in ('', '_resumed'))
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert differences(whole[part], again[part]) == []


@pytest.mark.parametrize('name', RECIPES)
def test_optimizer_state_of_sharded_runs_is_that_of_one_process(runs, name):
    """Compared by name: FSDP on the CPU once wrote the variance in place of the mean."""
    folder, _ = runs
    plain, sharded = (
        checkpoint(folder, f'{name}_{kind}')['optimizer'] for kind in ('single', 'fsdp')
    )
    order = [n for group in sharded['param_groups'] for n in group['params']]
    assert len(order) == len(plain['state'])
    for number, parameter in enumerate(order):
        for kind, value in plain['state'][number].items():
            torch.testing.assert_close(
                sharded['state'][parameter][kind], value, rtol=1e-2, atol=1e-5, msg=parameter
            )


def test_decay_is_decided_before_parameters_are_flat_pieces(runs):
    """Norms and biases have no weight decay, matrices do, as without sharding."""
    folder, _ = runs
    groups = checkpoint(folder, 'mim_fsdp')['optimizer']['param_groups']
    decay = {name: group['weight_decay'] for group in groups for name in group['params']}
    assert decay['backbone.blocks.0.mlp.fc1.weight'] == 0.05
    assert decay['backbone.blocks.0.mlp.fc1.bias'] == decay['backbone.blocks.0.norm1.weight'] == 0
