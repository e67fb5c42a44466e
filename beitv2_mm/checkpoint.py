"""The one adapter between checkpoints and modules.

    state_dict, report = adapt(state_dict, module)   # pure
    report = load(module, 'beitv2_base_patch16_224_pt1k.pth')

Names are compared in one common form, the official flat one, so that a backbone, a classifier, a
pretrainer and the official and timm files all read each other.
"""

import argparse
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt
from os import PathLike
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from beitv2_mm.layers.position import NUM_CLS_ROWS, Grid, resize_bias_table, resize_pos_embed

StateDict = dict[str, Tensor]
Source = str | PathLike | Mapping

BIAS_TABLE = 'relative_position_bias_table'
SHARED_TABLE = f'rel_pos_bias.{BIAS_TABLE}'
WRAPPERS = ('state_dict', 'model', 'module')
# Where our modules nest what the official files keep flat.
TO_OFFICIAL = (
    (re.compile(r'^module\.'), ''),
    (re.compile(r'^backbone\.'), ''),
    (re.compile(r'^neck\.'), ''),
    (re.compile(r'^head\.(fc|layers\.fc)\.'), 'head.'),
    (re.compile(r'^head\.((cls_pt_)?lm_head)\.'), r'\1.'),
)
HEADS = re.compile(r'^(head|lm_head|cls_pt_lm_head)\.')
DERIVED = re.compile(r'(^|\.)(relative_position_index|k_bias)$')  # follow from the settings


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or is not one of this model."""


@dataclass
class Report:
    """What became of a checkpoint, in the names of the module (``unexpected``: of the file)."""

    loaded: list[str] = field(default_factory=list)
    resized: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    copied: list[str] = field(default_factory=list)  # from the shared bias table
    dropped: list[str] = field(default_factory=list)  # heads of another shape
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f'{len(self.loaded)} tensors loaded']
        if self.copied:
            lines.append(f'  shared bias table copied to {len(self.copied)} blocks')
        lines += [f'  resized {k}: {old} -> {new}' for k, (old, new) in self.resized.items()]
        for word, names in (
            ('dropped, another shape', self.dropped),
            ('missing, keep their initial values', self.missing),
            ('in the file alone', self.unexpected),
        ):
            if names:
                more = f' and {len(names) - 12} more' if len(names) > 12 else ''
                lines.append(f'  {word}: {", ".join(names[:12])}{more}')
        return '\n'.join(lines)


def official_name(name: str) -> str:
    """The name that a parameter of ours has in the official files."""
    for pattern, replacement in TO_OFFICIAL:
        name = pattern.sub(replacement, name)
    return name


def to_official(state_dict: Mapping[str, Tensor]) -> StateDict:
    """State dict of a backbone, classifier or pretrainer under official (and timm's) names."""
    return {official_name(name): value for name, value in state_dict.items()}


def read(source: Source) -> StateDict:
    """Tensors of a file (.pth, .pt, .safetensors), URL or mapping, wrappers taken off.

    Files are read with ``weights_only=True``: nothing in them is run.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: the file is damaged, holds code, or holds no tensors.
    """
    if isinstance(source, Mapping):
        checkpoint, name = source, 'the given mapping'
    else:
        name = str(source)
        checkpoint = _download(name) if urlparse(name).scheme in ('http', 'https') else _read(name)
    while True:
        inner = next(
            (checkpoint[key] for key in WRAPPERS if isinstance(checkpoint.get(key), Mapping)), None
        )
        if inner is None:
            break
        checkpoint = inner
    tensors = {key: value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(
            f'{name} holds no tensors, only {sorted(map(str, checkpoint))[:10]}. Expected weights '
            f'at the top or under one of {WRAPPERS}.'
        )
    return tensors


def _read(path: str) -> Mapping:
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'There is no checkpoint {path}. Give the path of a file, or a URL.'
        )
    if path.endswith('.safetensors'):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f'{path} is no readable safetensors file: {error}') from error
    # Some official files keep their command line beside the weights; a Namespace is plain data.
    torch.serialization.add_safe_globals([argparse.Namespace])
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'{path} holds more than tensors and plain data, and was refused: loading it could run '
            f'code. Ask its author for weights alone, best as .safetensors. ({_first_line(error)})'
        ) from error
    except (RuntimeError, EOFError) as error:
        raise CheckpointError(
            f'{path} is damaged or no PyTorch checkpoint: {_first_line(error)}'
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(
            f'{path} holds a {type(checkpoint).__name__}; expected a dict of tensors.'
        )
    return checkpoint


def _first_line(error: BaseException) -> str:
    return str(error).strip().split('\n')[0]


def _download(url: str) -> Mapping:
    return torch.hub.load_state_dict_from_url(
        url, map_location='cpu', check_hash='-' in Path(urlparse(url).path).stem, weights_only=True
    )


def _square(rows: int, name: str) -> Grid:
    """(g, g) from the number of patches g * g."""
    side = isqrt(rows)
    if side * side != rows:
        raise CheckpointError(
            f'{name} comes from a grid that is not square, and its rows and columns cannot be '
            'told from its size. Pass source_grid=(rows, columns).'
        )
    return side, side


def _table_grid(table: Tensor, name: str) -> Grid:
    """(g, g) from a bias table of (2 g - 1)^2 + 3 rows."""
    span = _square(len(table) - NUM_CLS_ROWS, name)[0]
    return (span + 1) // 2, (span + 1) // 2


def _resize(name: str, value: Tensor, module: nn.Module, grid: Grid | None) -> Tensor | None:
    """A position tensor made to fit the module that owns ``name``; None for any other tensor."""
    owner_name, _, leaf = name.rpartition('.')
    target = getattr(module.get_submodule(owner_name), 'grid', None)
    if target is None:
        return None
    if leaf == BIAS_TABLE:
        return resize_bias_table(value, grid or _table_grid(value, name), target)
    if leaf == 'pos_embed':
        return resize_pos_embed(value, grid or _square(value.shape[1] - 1, name), target)
    return None


def adapt(
    state_dict: Mapping[str, Tensor], module: nn.Module, source_grid: Grid | None = None
) -> tuple[StateDict, Report]:
    """Turns tensors of any known source into what ``module.load_state_dict`` takes.

    Prefixes come off, a shared bias table is copied to the blocks that own one each, bias tables and
    position embeddings are resized, a head of another shape is dropped. Neither argument is changed.

    Args:
        source_grid: (rows, columns) of the source's patches; needed only where it is not square.

    Raises:
        CheckpointError: nothing in common with the module, or tensors of another shape.
    """
    source = {
        official_name(name): value for name, value in state_dict.items() if not DERIVED.search(name)
    }
    wanted = {official_name(name): name for name in module.state_dict()}
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    report = Report(unexpected=[name for name in source if name not in wanted])
    adapted: StateDict = {}
    wrong = []
    for official, name in wanted.items():
        value = source.get(official)
        if value is None and official.endswith(f'attn.{BIAS_TABLE}') and SHARED_TABLE in source:
            value = source[SHARED_TABLE]
            report.copied.append(name)
            if SHARED_TABLE in report.unexpected:
                report.unexpected.remove(SHARED_TABLE)
        if value is None:
            report.missing.append(name)
            continue
        if value.shape != shapes[name]:
            resized = _resize(name, value, module, source_grid)
            if resized is not None and resized.shape == shapes[name]:
                report.resized[name] = tuple(value.shape), tuple(resized.shape)
                value = resized
            elif HEADS.match(official):
                report.dropped.append(name)
                continue
            else:
                wrong.append(f'{name}: {tuple(value.shape)}, expected {tuple(shapes[name])}')
                continue
        adapted[name] = value
    report.loaded = list(adapted)
    if wrong:
        more = f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''
        raise CheckpointError(
            'The checkpoint is of another model; set arch, patch_size and img_size to its own. '
            f'Shapes that differ: {"; ".join(wrong[:5])}{more}'
        )
    if not adapted:
        raise CheckpointError(
            f'The checkpoint shares no tensor with {type(module).__name__}. It has '
            f'{list(state_dict)[:3]}, expected {list(wanted)[:3]}.'
        )
    return adapted, report


def load(
    module: nn.Module,
    source: Source,
    prefix: str | None = None,
    source_grid: Grid | None = None,
) -> Report:
    """Loads a path, URL or state dict into ``module`` and logs what was done.

    Args:
        prefix: take only tensors whose names start so, e.g. 'encoder.' of a tokenizer.

    Raises:
        FileNotFoundError, CheckpointError: see `read` and `adapt`.
    """
    state_dict = read(source)
    if prefix:
        prefix = prefix.removesuffix('.') + '.'
        state_dict = {
            name.removeprefix(prefix): value
            for name, value in state_dict.items()
            if name.startswith(prefix)
        }
    where = 'the given state dict' if isinstance(source, Mapping) else str(source)
    try:
        adapted, report = adapt(state_dict, module, source_grid)
    except CheckpointError as error:
        raise CheckpointError(f'{where}: {error}') from None
    module.load_state_dict(adapted, strict=False)
    print_log(f'{type(module).__name__} from {where}: {report}', logger='current')
    return report
