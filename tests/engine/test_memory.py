"""Memory: what is freed stays with the process, and an error names what needs less."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from beitv2_mm.engine.errors import MemoryShortageError
from beitv2_mm.engine.out_of_memory import explain_out_of_memory
from support.tiny import build_pretrainer
from support.tools import Tool

CONFIG = Path(__file__).parents[1] / 'support/toy_config.py'


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='of glibc')
def test_freed_memory_is_kept_unless_the_user_has_a_value() -> None:
    """Page faults of 4 times 8 tensors of 12 MiB: in the first round, not in each."""
    code = """
import os, resource, torch
from beitv2_mm.engine.launch import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        _ = [torch.ones(3 * 2**20) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
keep_freed_memory()
faults()
print(faults())
del os.environ['MALLOC_TRIM_THRESHOLD_']
keep_freed_memory()
faults()
print(faults())
"""
    command = [sys.executable, '-c', code]
    env = os.environ | {'MALLOC_TRIM_THRESHOLD_': str(2**17)}  # glibc reads it at the start
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    own, kept = map(int, done.stdout.split())
    assert own > 50_000 and kept < 5_000


def test_out_of_memory_names_what_needs_less(
    tool: Tool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The allocator's own error, of a tensor that no machine holds."""
    monkeypatch.setattr('support.toy.ToyModel.forward', lambda *args, **kwargs: torch.empty(2**45))
    with pytest.raises(SystemExit) as stopped:
        tool('train', CONFIG)
    message = str(stopped.value)
    for part in (
        'Memory ran out in iteration 1, with batches of 2 per process',
        "can't allocate memory",
        'train_dataloader.batch_size=1',
        'optim_wrapper.accumulative_counts=2',
        '--resume continues',
    ):
        assert part in message
    assert 'DefaultCPUAllocator' in str(stopped.value.__context__.__cause__)


def test_out_of_memory_names_the_parts_that_can_compute_again() -> None:
    runner = SimpleNamespace(
        model=build_pretrainer(with_cp='selective'),
        train_dataloader=SimpleNamespace(batch_size=64),
        optim_wrapper=SimpleNamespace(_accumulative_counts=2),
        iter=4,
    )
    switches = 'accumulative_counts=4.*model.backbone.with_cp=True model.neck.with_cp=True'
    with pytest.raises(MemoryShortageError, match=switches), explain_out_of_memory(runner):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory.')
    with pytest.raises(RuntimeError, match=r'^other$'), explain_out_of_memory(runner):
        raise RuntimeError('other')
