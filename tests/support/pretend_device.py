"""A pretended accelerator, for tests on machines that have none.

A tensor on it lives in CPU memory but says that its device is 'pretend': NumPy cannot read it, and
no operator takes it together with a CPU tensor of one dimension or more. Code that forgets
``.cpu()`` or ``.to(device)`` therefore fails here as it does on a GPU.

    with PretendDevice():
        model.to('pretend')(images.to('pretend'))
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NoReturn
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from support import waits
from support.waits import NAME, is_device

aten = torch.ops.aten
# Real devices, too, let these operators read a CPU tensor beside one of their own.
MIXED = {
    aten.copy_.default,
    aten._copy_from.default,
    aten._to_copy.default,
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}


class DeviceTensor(Tensor):
    """A tensor on the pretended device; ``host`` is the CPU tensor with its values."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor, requires_grad: bool = False) -> 'DeviceTensor':
        made = Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=torch.device(NAME, 0),
            requires_grad=requires_grad,
        )
        made.host = host
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ['host'], None

    @staticmethod
    def __tensor_unflatten__(inner: dict, meta: None, size: Any, stride: Any) -> 'DeviceTensor':
        return DeviceTensor(inner['host'])

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return run(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f'DeviceTensor({self.host!r})'

    def __reduce_ex__(self, protocol: Any) -> Any:  # torch.save writes the values
        return self.host.__reduce_ex__(protocol)

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.cpu().detach().numpy()
        raise TypeError(
            f"can't convert {NAME}:0 device type tensor to numpy. "
            'Use Tensor.cpu() to copy the tensor to host memory first.'
        )

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.numpy()

    def tolist(self) -> Any:
        waits.count('scalar' if self.dim() == 0 else 'to host')
        return self.host.tolist()

    def data_ptr(self) -> int:
        return self.host.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:  # safetensors asks which tensors share one
        return self.host.untyped_storage()

    def __deepcopy__(self, memo: dict) -> Tensor:
        made: Tensor = DeviceTensor(self.host.detach().clone(), self.requires_grad)
        if isinstance(self, nn.Parameter):
            made = nn.Parameter(made, self.requires_grad)
        memo[id(self)] = made
        return made


def run(func: Any, args: tuple, kwargs: dict) -> Any:
    """The operator on CPU memory; its results are on the pretended device if an argument was."""
    tensors: list[Tensor] = []

    def host(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor.host if isinstance(tensor, DeviceTensor) else tensor

    if func is aten._copy_from.default:  # (source, target)
        func, args = aten.copy_.default, (args[1], args[0])
    host_args, host_kwargs = _mapped(host, args), _mapped(host, kwargs)
    ours = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
    if ours:
        _refuse_company(func, tensors)
    if waits.counters:
        waits.count(waits.reason(func, args, kwargs, bool(ours)))
    wanted = kwargs.get('device')
    on_device = bool(ours) if wanted is None else is_device(wanted)
    if on_device and wanted is not None:
        host_kwargs['device'] = torch.device('cpu')
        host_kwargs.pop('pin_memory', None)
    result = func(*host_args, **host_kwargs)
    if func is aten._to_copy.default and wanted is not None and ours:
        result = result.clone()  # between devices a copy is made, whatever the types
    if not on_device:
        return result
    # In-place operators return what they were given.
    given = {id(tensor.host): tensor for tensor in ours} if func._schema.is_mutable else {}
    return _mapped(lambda made: given[id(made)] if id(made) in given else _on_device(made), result)


def _mapped(change: Callable, value: Any) -> Any:
    """Arguments of an operator with its tensors changed; pytree takes several times as long."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)([_mapped(change, each) for each in value])
    if type(value) is dict:
        return {name: _mapped(change, each) for name, each in value.items()}
    return value


def _on_device(host: Tensor) -> DeviceTensor:
    if torch.is_inference_mode_enabled() and not host.is_inference():  # a view of a parameter
        with torch.inference_mode(False):
            return DeviceTensor(host)
    return DeviceTensor(host)


def _refuse_company(func: Any, tensors: list[Tensor]) -> None:
    if func in MIXED:
        return
    for tensor in tensors:
        if not isinstance(tensor, DeviceTensor) and tensor.dim() and tensor.device.type == 'cpu':
            raise RuntimeError(
                'Expected all tensors to be on the same device, but found at least two devices, '
                f'{NAME}:0 and cpu! ({func})'
            )


class PretendDevice(TorchDispatchMode):
    """Inside, 'pretend' is a device: factories, copies and ``torch.load`` may name it."""

    def __enter__(self) -> 'PretendDevice':
        self.undo = ExitStack()
        self.undo.enter_context(patch.object(torch, 'load', partial(_load, torch.load)))
        # Nobody allocates pinned memory for it: loaders are not to ask.
        self.undo.enter_context(patch.object(torch.accelerator, 'is_available', lambda: False))
        return super().__enter__()

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        self.undo.close()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return run(func, args, kwargs or {})


def _load(load: Callable, *args: Any, map_location: Any = None, **kwargs: Any) -> Any:
    if isinstance(map_location, str | torch.device) and is_device(map_location):
        loaded = load(*args, map_location='cpu', **kwargs)
        return tree_map_only(Tensor, lambda tensor: tensor.to(map_location), loaded)
    return load(*args, map_location=map_location, **kwargs)


class _Backend(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def _register() -> torch.library.Library:
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    # C++ looks past the mode where it makes a tensor itself, of an index given as a list say, or of
    # the numbers in a list of tensors.
    library = torch.library.Library('aten', 'IMPL')
    for op in (
        aten.empty_strided.default,
        aten.empty.memory_format,
        aten._copy_from.default,
        aten._local_scalar_dense.default,
    ):
        library.impl(op, partial(_kernel, op), 'PrivateUse1')
    return library


def _kernel(op: Any, *args: Any, **kwargs: Any) -> Any:
    return run(op, args, kwargs)


LIBRARY = _register()
