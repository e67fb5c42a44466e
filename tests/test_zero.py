"""DeepSpeed ZeRO-2 on two gloo processes against DDP, over 20 steps."""

from importlib.util import find_spec

import pytest
import torch

from support.differences import differences
from support.strategy_ranks import SAVED, two_processes
from support.tiny import teacher_config

pytestmark = [
    pytest.mark.skipif(find_spec('deepspeed') is None, reason='needs deepspeed'),
    pytest.mark.cpu_only(reason='several processes over gloo'),
]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Folder with the checkpoints; losses."""
    folder = tmp_path_factory.mktemp('zero')
    teacher_config(folder)  # written once, before two processes would
    # mmengine builds one DeepSpeedStrategy a process
    losses = two_processes(folder, [('mim', 'ddp'), ('mim', 'zero')])
    losses |= two_processes(folder, [('mim', 'zero_float32')])
    return folder, losses | two_processes(folder, [], [('mim', 'zero')])


@pytest.mark.parametrize(
    ('kind', 'tolerance'),
    [('zero_float32', 1e-5), ('zero', 0.02)],  # bfloat16: an image patch may get another code
)
def test_losses_are_those_of_ddp(runs, kind, tolerance):
    _, losses = runs
    assert len(losses['mim_ddp'].unique()) == 20
    torch.testing.assert_close(losses[f'mim_{kind}'], losses['mim_ddp'], rtol=0, atol=tolerance)


def test_run_resumed_in_mid_epoch_equals_uninterrupted(runs):
    folder, losses = runs
    assert torch.equal(losses['mim_zero_resumed'][SAVED:], losses['mim_zero'][SAVED:])
    for file, part in (
        ('mp_rank_00_model_states.pt', 'module'),
        ('zero_pp_rank_0_mp_rank_00_optim_states.pt', 'optimizer_state_dict'),
        ('zero_pp_rank_1_mp_rank_00_optim_states.pt', 'optimizer_state_dict'),
    ):
        whole, again = (  # of this test's own making: DeepSpeed's are pickles with code
            torch.load(folder / run / 'iter_20.pth' / file, weights_only=False)
            for run in ('mim_zero', 'mim_zero_resumed')
        )
        if part != 'module':
            scalers = [vars(state[part].pop('loss_scaler')) for state in (whole, again)]
            assert scalers[0] == scalers[1]
        assert differences(whole[part], again[part]) == []
