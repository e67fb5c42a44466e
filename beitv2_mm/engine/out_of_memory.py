"""Advice for a training step that runs out of memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.runner import Runner

from beitv2_mm.engine.errors import MemoryShortageError
from beitv2_mm.engine.unwrap import unwrapped_model
from beitv2_mm.layers import Block


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch ran out of memory, on any device."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and 'DefaultCPUAllocator' in str(error)
    )


@contextmanager
def explain_out_of_memory(runner: Runner) -> Iterator[None]:
    """Turns PyTorch's error into one that names the settings to change.

    Raises:
        MemoryShortageError: in place of PyTorch's error, which is its cause.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryShortageError(_advice(runner, str(error).split('\n')[0])) from error


def _advice(runner: Runner, reason: str) -> str:
    batch = runner.train_dataloader.batch_size
    counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    model = unwrapped_model(runner)
    parts = [
        name
        for name, part in model.named_children()
        if any(isinstance(m, Block) and m.with_cp is not True for m in part.modules())
    ]
    text = (
        f'Memory ran out in iteration {runner.iter + 1}, with batches of {batch} per process '
        f'({reason}).'
    )
    if batch > 1:
        text += (
            ' Halve the batch and double the accumulation, which makes the same step in parts: '
            f'train_dataloader.batch_size={batch // 2} '
            f'optim_wrapper.accumulative_counts={2 * counts}.'
        )
    if parts:
        switches = ' '.join(f'model.{name}.with_cp=True' for name in parts)
        text += f' Or recompute activations by gradient checkpointing: {switches}.'
    return f'{text} Options follow --cfg-options; --resume continues from the last checkpoint.'
