"""``pytest --device cpu|pretend|cuda``: models and data of the tests on that device.

The device is mmengine's, so runners and inferencers choose it themselves. Beside that, what a test
makes itself is put there: the result of a factory (``torch.rand``, ``torch.as_tensor``) called in
a file of the tests, the parameters and buffers of a module built there. What the package
makes is where the package puts it, so a device that it forgets is found.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn
from unittest.mock import patch

import mmengine.device.utils
import pytest
import timm
import torch
from mmengine import registry
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils.data import get_worker_info

TESTS = str(Path(__file__).parents[1])
LIBRARIES = tuple(str(Path(lib.__file__).parent) for lib in (torch, timm, registry))


class MadeByTests(TorchFunctionMode):
    """Puts what the tests' own files make on ``device``.

    Values are drawn on the CPU, so that they are the same on every device.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if func not in _device_constructors() or (kwargs or {}).get('device') is not None:
            return made
        if made.device.type != 'cpu' or get_worker_info() is not None:  # loaders work on the CPU
            return made
        if not _is_test(_caller(sys._getframe(1))):
            return made
        return made.detach().to(self.device).requires_grad_(made.requires_grad)

    def registered(self, module: nn.Module, name: str, value: Tensor | None) -> Tensor | None:
        """The hook for parameters and buffers: None leaves the value as it is."""
        if value is None or value.device.type != 'cpu' or not _is_test(_builder()):
            return None
        moved = value.detach().to(self.device)
        if isinstance(value, nn.Parameter):
            return nn.Parameter(moved, value.requires_grad)
        return moved

    def constructor(self, of_cpu: Callable) -> Callable:
        """Of mmengine's preprocessors, which note where their buffers are: batches go there."""

        def __init__(self: BaseDataPreprocessor, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            of_cpu(self, *args, **kwargs)
            if _is_test(_builder()):
                self._device = device

        device = torch.device(self.device)
        return __init__


def _caller(frame: FrameType | None) -> FrameType | None:
    while frame is not None and frame.f_code.co_filename.startswith(LIBRARIES):
        frame = frame.f_back
    return frame


def _builder() -> FrameType | None:
    """Who called the outermost constructor of a module that is running now."""
    frame: FrameType | None = sys._getframe(1)
    outermost = None
    while frame is not None:
        code = frame.f_code
        if code.co_name == '__init__' and isinstance(frame.f_locals.get('self'), nn.Module):
            outermost = frame
        frame = frame.f_back
    return outermost and _caller(outermost.f_back)


def _is_test(frame: FrameType | None) -> bool:
    return frame is not None and frame.f_code.co_filename.startswith(TESTS)


def _no_compiler(*args: Any, **kwargs: Any) -> NoReturn:
    pytest.skip('torch.compile finds no frames on the pretended device')


@contextmanager
def on_device(name: str) -> Iterator[None]:
    """Models and data on the device of this name, and mmengine's device the same."""
    with ExitStack() as stack:
        before = mmengine.device.utils.DEVICE
        stack.callback(setattr, mmengine.device.utils, 'DEVICE', before)
        mmengine.device.utils.DEVICE = name
        if name == 'pretend':
            from support.pretend_amp import mixed_precision
            from support.pretend_device import PretendDevice
            from support.pretend_instances import indexable

            stack.enter_context(PretendDevice())
            stack.enter_context(patch.object(torch, 'compile', _no_compiler))
            stack.enter_context(mixed_precision())
            stack.enter_context(indexable())
        if name != 'cpu':
            mode = stack.enter_context(MadeByTests(name))
            constructor = mode.constructor(BaseDataPreprocessor.__init__)
            stack.enter_context(patch.object(BaseDataPreprocessor, '__init__', constructor))
            for register in (
                hooks.register_module_parameter_registration_hook,
                hooks.register_module_buffer_registration_hook,
            ):
                stack.callback(register(mode.registered).remove)
        yield
