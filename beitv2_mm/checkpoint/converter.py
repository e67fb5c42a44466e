"""Converts checkpoints of any known layout to another one, which its package loads strictly.

    conversion = convert_file('beitv2_base_patch16_224_pt1k_ft1k.pth', 'vit.safetensors', to='timm')
    print(conversion)

Values change only for another grid, so converting there and back is exact.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.checkpoint.files import Source, open_checkpoint, write
from beitv2_mm.checkpoint.grids import check_grid, grid_of, resize, table_grid
from beitv2_mm.checkpoint.layouts import Format, target_tensors
from beitv2_mm.checkpoint.mismatch import arch_of
from beitv2_mm.checkpoint.names import (
    BIAS_TABLE,
    CODEBOOK,
    INITIALIZED,
    Kind,
    StateDict,
    check_plain,
    kind_of,
    official_names,
    shown,
    to_official,
)
from beitv2_mm.checkpoint.network import network_in
from beitv2_mm.checkpoint.transformers_names import config_of, from_transformers
from beitv2_mm.compat.safe_load import CheckpointError
from beitv2_mm.layers.arch import get_arch
from beitv2_mm.layers.position import Grid, relative_position_index, table_size

# The key of the weights in a .pth of each format.
WRAPPER: dict[str, str | None] = dict(
    beitv2_mm='state_dict',
    official='model',
    timm=None,
    mmpretrain='state_dict',
    transformers=None,
)
FORMATS = tuple(WRAPPER)
SUFFIXES = ('.pth', '.pt', '.bin', '.safetensors')
_TABLE = re.compile(rf'(^|\.){BIAS_TABLE}$')


class Row(NamedTuple):
    """A tensor in both layouts; the source is '' if it was made, the target if it was left out.

    'split' means that the new layout has several tensors with a part each, 'derived' that the new
    layout does not store the tensor, because it follows from the settings, and 'dropped' that the
    new layout has no place for it.
    """

    action: Literal['kept', 'renamed', 'copied', 'split', 'resized', 'made', 'derived', 'dropped']
    source: str
    target: str
    shape: tuple[int, ...]


@dataclass
class Conversion:
    """Weights in the new layout and a row for each tensor; ``str`` gives a table."""

    kind: Kind
    to: Format
    state_dict: StateDict = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @property
    def dropped(self) -> list[str]:
        """Names in the source for which the new layout has no place."""
        return [row.source for row in self.rows if row.action == 'dropped']

    def add(self, source: str, target: str, value: Tensor, action: str = '') -> None:
        action = action or ('kept' if source == target else 'renamed')
        self.state_dict[target] = value
        self.rows.append(Row(action, source, target, tuple(value.shape)))  # type: ignore[arg-type]

    def leave(self, source: str, value: Tensor, action: str = 'dropped') -> None:
        self.rows.append(Row(action, source, '', tuple(value.shape)))  # type: ignore[arg-type]

    def __str__(self) -> str:
        groups: dict[Row, int] = {}  # the same tensor of all blocks is one line
        for row in self.rows:
            source, target = (re.sub(r'\.\d+\.', '.*.', n, count=1) for n in row[1:3])
            group = row._replace(source=source, target=target)
            groups[group] = groups.get(group, 0) + 1
        lines = [('tensors', 'what', 'from', 'to', 'shape')]
        order = ('kept', 'renamed', 'copied', 'split', 'resized', 'made', 'derived', 'dropped')
        for row, count in sorted(groups.items(), key=lambda item: order.index(item[0].action)):
            lines.append(
                (str(count), row.action, row.source or '-', row.target or '-', str(row.shape))
            )
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = (
            '  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )
        return '\n'.join([f'{self.kind} -> {self.to}', *table])


def convert(
    state_dict: Mapping[str, Tensor],
    to: Format,
    source_grid: Grid | None = None,
    grid: Grid | None = None,
    prefix: str | None = None,
    ema: bool = False,
) -> Conversion:
    """Converts weights of any known layout to the layout ``to``; the argument is not changed.

    Args:
        source_grid: (rows, columns) of the source's patches; needed only if it is not square.
        grid: (rows, columns) to which bias tables and position embeddings are resized.
        prefix: take only tensors whose names start with it; None finds the prefix.
        ema: take the moving average, which is recognised by its prefix.

    Raises:
        CheckpointError: these are no weights of BEiT v2, or the layout has no such model.
    """
    if to not in FORMATS:
        raise CheckpointError(f'to is {to!r}; expected one of {FORMATS}.')
    check_plain(state_dict)
    for given in filter(None, (source_grid, grid)):
        check_grid(given, 'the grid')
    state_dict = network_in(state_dict, prefix=prefix, ema=ema).tensors
    names = official_names(state_dict)
    if not {'blocks.0.attn.q_bias', 'encoder.blocks.0.attn.q_bias'} & names.keys():
        raise CheckpointError(f'These are no weights of BEiT v2: [{shown(state_dict)}].')
    result = Conversion(kind_of(names), to)
    if result.kind == 'tokenizer' and state_dict[names[CODEBOOK]].ndim != 2:
        raise CheckpointError(f'{names[CODEBOOK]} is no table of codes.')
    if to in ('timm', 'transformers') and result.kind == 'tokenizer':
        raise CheckpointError(f'This is a tokenizer, and {to} has none.')
    for official, source in names.items():
        stored = value = state_dict[source]
        if grid is not None:
            value = resize(official, stored, grid, source_grid)
        pieces = target_tensors(official, value, result.kind, to, names)
        action = ('copied' if to == 'timm' else 'split') if len(pieces) > 1 else ''
        for target, piece in pieces:
            result.add(source, target, piece, action if value is stored else 'resized')
        if not pieces:
            result.leave(source, value)
    _make_derived(result, grid or source_grid)
    if len(result.state_dict) < sum(bool(row.target) for row in result.rows):
        raise CheckpointError('Two tensors would have the same name in the new layout.')
    for source in sorted(state_dict.keys() - set(names.values())):
        result.leave(source, state_dict[source], 'derived')
    return result


def _make_derived(result: Conversion, grid: Grid | None) -> None:
    """Adds tensors that strict loading needs although they follow from others."""
    weights = result.state_dict
    if result.to in ('official', 'mmpretrain'):
        for name in [name for name in weights if _TABLE.search(name)]:
            used = grid or table_grid(weights[name], name)
            if weights[name].shape[:1] != (table_size(used),):
                raise CheckpointError(
                    f'{name} has {tuple(weights[name].shape)}, but a grid of {used[0]} x {used[1]} '
                    f'patches has {table_size(used)} rows. Give the grid of the source.'
                )
            index = relative_position_index(used).clone()
            result.add('', name.replace('bias_table', 'index'), index, 'made')
        if result.kind == 'tokenizer' and INITIALIZED not in weights:
            result.add('', INITIALIZED, torch.ones(1), 'made')
        if result.kind == 'tokenizer' and 'quantize.cluster_size' not in weights:
            sizes = torch.zeros(len(weights[CODEBOOK]))
            result.add('', 'quantize.cluster_size', sizes, 'made')
    if result.to == 'official' and result.kind == 'tokenizer':  # never read by the reference
        codebook = weights[CODEBOOK]
        prefix = CODEBOOK.removesuffix('weight')
        result.add('', f'{prefix}cluster_size', torch.zeros(len(codebook)), 'made')
        result.add('', f'{prefix}embed_avg', codebook.clone(), 'made')


def convert_file(
    source: Source,
    destination: str | PathLike[str],
    to: Format,
    source_grid: Grid | None = None,
    grid: Grid | None = None,
    prefix: str | None = None,
    ema: bool = False,
) -> Conversion:
    """Converts a file or URL and writes .pth or .safetensors, completely or not at all.

    For 'transformers' the destination may be a folder; config.json and model.safetensors are then
    written into it, as ``from_pretrained`` reads them.

    Args:
        source_grid, grid, prefix: see `convert`.
        ema: take the moving average of the weights, an error if the file has none.

    Raises:
        CheckpointError: see `read`, `convert` and `write`.
    """
    found = open_checkpoint(source, ema)
    result = convert(found.tensors, to, source_grid, grid, prefix, ema and not found.is_average)
    destination = Path(destination)
    if to == 'transformers' and destination.suffix not in SUFFIXES:
        weights = to_official(from_transformers(result.state_dict))
        arch = arch_of(weights)
        assert arch is not None  # `convert` has checked that there are blocks
        config = config_of(weights, result.kind, get_arch(arch), grid_of(weights))
        destination.mkdir(parents=True, exist_ok=True)
        write(result.state_dict, destination / 'model.safetensors')
        write_atomic(destination / 'config.json', json.dumps(config, indent=2).encode())
    else:
        write(result.state_dict, destination, WRAPPER[to])
    return result
