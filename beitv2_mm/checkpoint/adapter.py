"""Any known source -> what a module's ``load_state_dict`` takes.

    state_dict, report = adapt(state_dict, module)   # pure
    report = load(module, 'beitv2_base_patch16_224_pt1k.pth')

Nothing is loaded before everything is known to fit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isqrt

from mmengine.logging import print_log
from torch import Tensor, nn

from beitv2_mm.checkpoint.files import Source, open_checkpoint
from beitv2_mm.checkpoint.mismatch import check_structure, proposal
from beitv2_mm.checkpoint.names import (
    BIAS_TABLE,
    HEADS,
    SHARED_TABLE,
    StateDict,
    check_plain,
    official_names,
    shown,
    to_official,
)
from beitv2_mm.checkpoint.network import network_in
from beitv2_mm.checkpoint.patch_embed import fit_patch_embed
from beitv2_mm.compat.safe_load import CheckpointError
from beitv2_mm.layers.position import (
    NUM_CLS_ROWS,
    Grid,
    resize_bias_table,
    resize_pos_embed,
    table_size,
)

MAX_PATCHES = 1 << 14  # 128 x 128: the index of so many takes 2 GiB
Shapes = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass
class Report:
    """What became of a checkpoint, in the names of the module (``unexpected``: official ones)."""

    loaded: list[str] = field(default_factory=list)
    prefix: str = ''  # that the module's tensors had in the file
    notes: list[str] = field(default_factory=list)
    resized: dict[str, Shapes] = field(default_factory=dict)  # from -> to
    copied: list[str] = field(default_factory=list)  # from the shared bias table
    dropped: dict[str, Shapes] = field(default_factory=dict)  # heads: the file's, the module's
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f'{len(self.loaded)} tensors loaded']
        if self.prefix:
            lines.append(f'  found under {shown([self.prefix])}')
        lines += [f'  {note}' for note in self.notes]
        if self.copied:
            lines.append(f'  shared bias table copied to {len(self.copied)} blocks')
        lines += [f'  resized {k}: {old} -> {new}' for k, (old, new) in self.resized.items()]
        lines += [
            f'  dropped, another shape: {k}, {old} in the file, {new} in the model, which keeps '
            'its initial values'
            for k, (old, new) in self.dropped.items()
        ]
        for word, names in (
            ('missing, keep their initial values', self.missing),
            ('in the file alone', self.unexpected),
        ):
            if names:
                lines.append(f'  {word}: ' + shown(names, 12).replace("'", ''))
        return '\n'.join(lines)


def check_grid(grid: Grid, name: str) -> None:
    """Raises a CheckpointError unless there are 1 to `MAX_PATCHES` patches: others fill memory."""
    if min(grid) < 1 or grid[0] * grid[1] > MAX_PATCHES:
        raise CheckpointError(
            f'{name}: a grid of {grid[0]} x {grid[1]} patches; expected 1 to {MAX_PATCHES} patches.'
        )


def square_grid(patches: int, name: str) -> Grid:
    """(g, g) from the number of patches g * g."""
    side = isqrt(max(patches, 0))
    check_grid((side, side), name)
    if side * side != patches:
        raise _not_square(name)
    return side, side


def _not_square(name: str) -> CheckpointError:
    return CheckpointError(
        f'{name} comes from a grid that is not square, and its rows and columns cannot be '
        'told from its size. Pass source_grid=(rows, columns).'
    )


def table_grid(table: Tensor, name: str) -> Grid:
    """(g, g) from a bias table of (2 g - 1)^2 + 3 rows."""
    span = isqrt(max(table.shape[0] - NUM_CLS_ROWS, 0)) if table.ndim == 2 else 0
    side = (span + 1) // 2
    if table.ndim != 2 or table.shape[0] != table_size((side, side)):
        raise _not_square(name)
    check_grid((side, side), name)
    return side, side


def grid_of(weights: Mapping[str, Tensor], part: str = '') -> Grid:
    """The square grid that a transformer was trained with, from official names.

    Raises:
        CheckpointError: it has no positions, or they are not of a square grid.
    """
    position = f'{part}pos_embed'
    if position in weights:
        return square_grid(weights[position].shape[1] - 1, position)
    for name in (SHARED_TABLE, f'{part}blocks.0.attn.{BIAS_TABLE}'):
        if name in weights:
            return table_grid(weights[name], name)
    raise CheckpointError('It has no positions, which tell the grid of patches.')


def resize(name: str, value: Tensor, target: Grid, source: Grid | None = None) -> Tensor:
    """A bias table or position embedding for another patch grid; other tensors as they are.

    Args:
        source: grid that it was trained with; None for a square one.

    Raises:
        CheckpointError: its grid is not square, or not ``source``.
    """
    leaf = name.rpartition('.')[2]
    if leaf not in (BIAS_TABLE, 'pos_embed'):
        return value
    for grid in filter(None, (source, target)):
        check_grid(grid, name)
    fits = value.ndim == (2 if leaf == BIAS_TABLE else 3) and value.numel()
    if not fits or not value.is_floating_point():
        raise CheckpointError(f'{name} cannot be {tuple(value.shape)} of {value.dtype}.')
    try:
        if leaf == BIAS_TABLE:
            return resize_bias_table(value, source or table_grid(value, name), target)
        return resize_pos_embed(value, source or square_grid(value.shape[1] - 1, name), target)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f'{name}: {error}') from None


def _fit(name: str, value: Tensor, own: Tensor, module: nn.Module, source: Grid | None) -> Tensor:
    """A position tensor or patch embedding made to fit the module that owns ``name``; other tensors
    as they are."""
    if name.endswith('patch_embed.proj.weight') and value.ndim == own.ndim == 4:
        is_float = value.is_floating_point() and value.numel() and not value.is_meta
        return fit_patch_embed(value, own.shape) if is_float and len(value) == len(own) else value
    target = getattr(module.get_submodule(name.rpartition('.')[0]), 'grid', None)
    if target is None or value.ndim != own.ndim or value.shape[-1] != own.shape[-1]:
        return value
    return resize(name, value, target, source)


def _flaw(value: Tensor, own: Tensor) -> str:
    """What is wrong with a tensor of the right shape, '' if nothing."""
    if own.is_floating_point() and not value.is_floating_point():
        return f'{value.dtype}, expected {own.dtype}'
    if value.is_meta or own.is_meta:
        return '' if own.is_meta else 'no values'
    if value.is_floating_point() and not value.float().isfinite().all():
        return 'NaN or infinite values'
    return ''


def adapt(
    state_dict: Mapping[str, Tensor],
    module: nn.Module,
    source_grid: Grid | None = None,
    prefix: str | None = None,
    ema: bool = False,
) -> tuple[StateDict, Report]:
    """Turns tensors of any known source into what ``module.load_state_dict`` takes.

    Prefixes come off, a shared bias table is copied to the blocks that own one each, bias tables,
    position embeddings and the patch embedding are resized, a head of another shape is dropped.
    Neither argument is changed.

    Args:
        source_grid: (rows, columns) of the source's patches; needed only where it is not square.
        prefix: take only tensors whose names start so; None finds the prefix.
        ema: take the moving average where names say that there is one.

    Raises:
        CheckpointError: nothing in common with the module, or tensors of another shape or kind, or
            with NaN; several networks that fit.
    """
    check_plain(state_dict)
    own = module.state_dict()
    wanted = official_names(own)
    network = network_in(state_dict, wanted, prefix, ema)
    source = to_official(network.tensors)
    report = Report(
        prefix=network.prefix,
        notes=[network.note] if network.note else [],
        unexpected=[name for name in source if name not in wanted],
    )
    shapes = {name: value.shape for name, value in own.items()}
    adapted: StateDict = {}
    wrong, flaws = {}, []
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
        if value.shape != shapes[name] or source_grid is not None:
            fitted = _fit(name, value, own[name], module, source_grid)
            if fitted is not value:
                report.resized[name] = tuple(value.shape), tuple(fitted.shape)
            if value.numel() == shapes[name].numel() == 1:  # flags are scalars here, (1,) elsewhere
                fitted = value.reshape(shapes[name])
            value = fitted
        if value.shape == shapes[name]:
            adapted[name] = value
            if flaw := _flaw(value, own[name]):
                flaws.append(f'{name}: {flaw}')
        elif HEADS.match(official):
            report.dropped[name] = tuple(value.shape), tuple(shapes[name])
        else:
            wrong[name] = f'{name}: {tuple(value.shape)}, expected {tuple(shapes[name])}'
    report.loaded = list(adapted)
    if wrong:
        raise CheckpointError(
            f'The checkpoint is of another model{proposal(source, module)}. Shapes that differ: '
            f'{_first(wrong.values())}'
        )
    if flaws:
        raise CheckpointError(
            'The checkpoint is damaged, or its run had diverged: take an earlier one. '
            f'{_first(flaws)}'
        )
    if not adapted:
        raise CheckpointError(
            f'The checkpoint shares no tensor with {type(module).__name__}. It has '
            f'[{shown(state_dict)}], expected [{shown(wanted)}].'
        )
    check_structure(source, wanted, module)
    return adapted, report


def _first(lines: Iterable[str]) -> str:
    lines = list(lines)
    return '; '.join(lines[:5]) + (f' and {len(lines) - 5} more' if len(lines) > 5 else '')


def load(
    module: nn.Module,
    source: Source,
    prefix: str | None = None,
    source_grid: Grid | None = None,
    ema: bool = False,
) -> Report:
    """Loads a path, URL or state dict into ``module`` and logs what was done.

    Args:
        prefix: take only tensors whose names start so, e.g. 'encoder.' of a tokenizer; None finds
            the prefix.
        ema: take the moving average of the weights, where the file has one beside them.

    Raises:
        CheckpointError: see `read` and `adapt`.
    """
    tensors, note, is_average = open_checkpoint(source, ema)
    where = 'the given state dict' if isinstance(source, Mapping) else str(source)
    try:
        adapted, report = adapt(tensors, module, source_grid, prefix, ema and not is_average)
    except CheckpointError as error:
        raise CheckpointError(f'{where}: {error}') from None
    report.notes += [note] if note else []
    module.load_state_dict(adapted, strict=False)
    print_log(f'{type(module).__name__} from {where}: {report}', logger='current')
    return report
