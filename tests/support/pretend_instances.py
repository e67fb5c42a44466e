"""mmengine's InstanceData on the pretended device: it asks an index for its class, which names a
real device and a type."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Union
from unittest.mock import patch

import torch
from mmengine.structures import instance_data

from support.pretend_device import DeviceTensor


class _OfType(type):
    """The class of the pretended device's tensors of one type, like torch.cuda.BoolTensor."""

    dtype: torch.dtype

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, DeviceTensor) and value.dtype == cls.dtype


class BoolTensor(metaclass=_OfType):
    dtype = torch.bool


class LongTensor(metaclass=_OfType):
    dtype = torch.int64


@contextmanager
def indexable() -> Iterator[None]:
    """Inside, tensors of the pretended device may index an InstanceData."""
    index = Union[(*instance_data.IndexType.__args__, BoolTensor, LongTensor)]
    mask = Union[(*instance_data.BoolTypeTensor.__args__, BoolTensor)]
    with (
        patch.object(instance_data, 'IndexType', index),
        patch.object(instance_data, 'BoolTypeTensor', mask),
    ):
        yield
