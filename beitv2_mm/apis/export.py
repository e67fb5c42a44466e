"""Models as files for other programs: torch.export (.pt2) and ONNX (.onnx).

The graph takes RGB images in [0, 1], (B, 3, H, W), and normalises them itself.
"""

import copy
import importlib
import io
from collections.abc import Sequence
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.utils import digit_version
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.models import BEiTV2Pretrainer, VQKDTokenizer

FORMATS = ('.pt2', '.onnx')
TASKS = ('classifier', 'features', 'codes', 'segmentor')
TOLERANCE = 1e-4
ONNX_FROM = '2.8'  # the exporter of 2.6 fails where the batch is any


class ExportError(ValueError):
    """The model cannot be exported as asked, or the exported file gives other results."""


class Exportable(nn.Module):
    """A model in eval mode as a function of images: (B, 3, H, W) in [0, 1] -> a tuple of tensors.

    'classifier' gives logits (B, classes), 'features' the backbone's outputs, 'codes' int64 (B, N),
    'segmentor' logits (B, classes, H, W) of the whole image.

    Args:
        task: one of `TASKS`; None takes the first that the model can do.

    Raises:
        ExportError: the model cannot do this task.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: BaseModel, task: str | None = None) -> None:
        super().__init__()
        possible = tasks(model)
        if not possible or (task is not None and task not in possible):
            raise ExportError(
                f'{type(model).__name__} cannot be exported as {task or "anything"}; '
                f'possible: {", ".join(possible) or "nothing"}.'
            )
        self.model = model.eval()
        self.task = task or possible[0]
        for name, neutral in (('mean', 0.0), ('std', 1.0)):
            value = getattr(model.data_preprocessor, name, None)
            value = torch.full((3,), neutral) if value is None else value.float()
            value = value.to(next(model.parameters()).device)
            self.register_buffer(name, value.reshape(1, 3, 1, 1) / 255)  # of pixels 0 to 255

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        images = (images - self.mean) / self.std
        if self.task == 'codes':
            # get_codes searches in pieces, and a graph with their number takes one batch size only.
            latents = F.normalize(self.model.encode(images), dim=-1)
            return ((latents @ self.model.quantize.embedding.weight.T).argmax(dim=-1),)
        if self.task == 'segmentor':
            shape = dict(img_shape=images.shape[2:])
            return (self.model.encode_decode(images, [shape]),)
        # A pretrainer normalises its images itself, since the tokenizer needs other values.
        network = self.model if isinstance(self.model, BEiTV2Pretrainer) else self.model.backbone
        features: tuple[Tensor, ...] = network(images)
        if self.task == 'features':
            return features
        return (self.model.head(features),)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width that the model was built for."""
        network = self.model.encoder if self.task == 'codes' else self.model.backbone
        (rows, columns), (height, width) = network.grid, network.patch_size
        return rows * height, columns * width


def tasks(model: BaseModel) -> list[str]:
    """Those of `TASKS` that a model can be exported as, the one that does most first."""
    if isinstance(model, VQKDTokenizer):
        return ['codes']
    if hasattr(model, 'decode_head'):
        return ['segmentor', 'features']
    if not hasattr(model, 'backbone'):
        return []
    head = getattr(model, 'head', None)
    return ['classifier', 'features'] if hasattr(head, 'num_classes') else ['features']


def export(
    model: Exportable,
    path: str | PathLike,
    batch: int | None = None,
    size: tuple[int, int] | None = None,
) -> float:
    """Write a model and compare the file's results with the model's.

    Args:
        path: ends with one of `FORMATS`.
        batch: the only batch size that the file takes; None for any.
        size: height and width of its images; None takes the model's.

    Returns:
        The largest difference, relative to the largest value where that is over 1; codes that
        differ count as 1.

    Raises:
        ExportError: the suffix is another one, a package is missing, or the results differ; no file
            is written then.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ExportError(f'{path} should end with {" or ".join(FORMATS)}.')
    if model.mean.device.type != 'cpu':  # the copy goes to the CPU, so the file runs anywhere
        model = copy.deepcopy(model).cpu()
    images = torch.rand(batch or 2, 3, *(size or model.input_size))
    with torch.no_grad():  # fills the caches of constants with real tensors, not the tracer's
        model(images)
    # With a maximum, since PyTorch 2.6 compares the size with the end of an open slice, 2**63 - 1.
    dynamic = {'images': {0: torch.export.Dim('batch', max=2**31)}} if batch is None else None
    with torch.no_grad(), nullcontext() if path.suffix == '.pt2' else _PlainAttention():
        program = torch.export.export(model, (images,), dynamic_shapes=dynamic, strict=False)
    content = _to_bytes(program) if path.suffix == '.pt2' else _to_onnx(program)
    check = images if batch else torch.rand(3, *images.shape[1:])
    worst = difference(model, content, path.suffix, check)
    if worst > TOLERANCE:
        raise ExportError(
            f"{path} was not written: its results differ from the model's by {worst:.2g}, which is "
            f'more than {TOLERANCE:g}.'
        )
    write_atomic(path, content)
    return worst


class _PlainAttention(TorchFunctionMode):
    """Makes the result of fused attention contiguous, as (B, heads, N, d).

    ONNX replaces the fused kernel by matrix products, whose result is contiguous; the graph would
    otherwise contain views that do not fit it.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        return result.contiguous() if func is F.scaled_dot_product_attention else result


def _to_bytes(program: torch.export.ExportedProgram) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _to_onnx(program: torch.export.ExportedProgram) -> bytes:
    if digit_version(torch.__version__) < digit_version(ONNX_FROM):
        raise ExportError(
            f'ONNX needs PyTorch {ONNX_FROM} or newer, here is {torch.__version__}. '
            'A .pt2 file works with this version.'
        )
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ExportError(
                f'ONNX needs {package}, which is not installed: pip install "beitv2_mm[export]"'
            ) from error
    exported = torch.onnx.export(program, dynamo=True, input_names=['images'], verbose=False)
    assert exported is not None
    return bytes(exported.model_proto.SerializeToString())


def run(content: bytes, suffix: str, images: Tensor) -> Sequence[Tensor]:
    """The outputs of an exported file for images (B, 3, H, W) in [0, 1]."""
    if suffix == '.pt2':
        loaded = torch.export.load(io.BytesIO(content)).module()
        with torch.no_grad():
            outputs: Sequence[Tensor] = loaded(images)
        return outputs
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
    return [torch.from_numpy(array) for array in session.run(None, {'images': images.numpy()})]


def difference(model: Exportable, content: bytes, suffix: str, images: Tensor) -> float:
    """The largest difference between a file's results and the model's, see `export`."""
    images = images.to(model.mean.device)
    with torch.no_grad():
        expected = model(images)
        if model.task == 'codes':
            expected = (model.model.get_codes(images),)
    worst, found = 0.0, run(content, suffix, images.cpu())
    for ours, theirs in zip([each.cpu() for each in expected], found, strict=True):
        if not ours.is_floating_point():
            worst = max(worst, float((ours != theirs).any()))
        else:
            worst = max(worst, float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1)))
    return worst
