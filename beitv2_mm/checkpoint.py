"""The one adapter between checkpoints and modules.

    state_dict, report = adapt(state_dict, module)   # pure
    report = load(module, 'beitv2_base_patch16_224_pt1k.pth')

Names are compared in one common form, the official flat one, so that a backbone, a classifier, a
pretrainer and the official and timm files all read each other.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt
from os import PathLike

from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from beitv2_mm.compat import CheckpointError
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

    Files are read by mmengine's loader as `beitv2_mm.compat` hardens it: nothing in them is run.

    Raises:
        CheckpointError: the file is missing or damaged, holds code, or holds no tensors.
    """
    if isinstance(source, Mapping):
        checkpoint, name = source, 'the given mapping'
    else:
        name = str(source)
        checkpoint = CheckpointLoader.load_checkpoint(name, map_location='cpu')
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(
            f'{name} holds a {type(checkpoint).__name__}; expected a dict of tensors.'
        )
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
    side = (_square(len(table) - NUM_CLS_ROWS, name)[0] + 1) // 2
    return side, side


def _resize(name: str, value: Tensor, module: nn.Module, grid: Grid | None) -> Tensor | None:
    """A position tensor made to fit the module that owns ``name``; None for any other tensor."""
    owner_name, _, leaf = name.rpartition('.')
    target = getattr(module.get_submodule(owner_name), 'grid', None)
    if target is None:
        return None
    try:
        if leaf == BIAS_TABLE:
            return resize_bias_table(value, grid or _table_grid(value, name), target)
        if leaf == 'pos_embed':
            return resize_pos_embed(value, grid or _square(value.shape[1] - 1, name), target)
    except ValueError as error:
        raise CheckpointError(f'{name}: {error}') from None
    return None


def adapt(
    state_dict: Mapping[str, Tensor], module: nn.Module, source_grid: Grid | None = None
) -> tuple[StateDict, Report]:
    """Turns tensors of any known source into what ``module.load_state_dict`` takes.

    Prefixes come off, a shared bias table is copied to the blocks that own one each, bias tables
    and position embeddings are resized, a head of another shape is dropped. Neither argument is
    changed.

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
        # Grids of 4 x 6 and 6 x 4 patches have tables of one shape.
        if value.shape != shapes[name] or source_grid is not None:
            resized = _resize(name, value, module, source_grid)
            if resized is not None and resized.shape == shapes[name] and resized is not value:
                report.resized[name] = tuple(value.shape), tuple(resized.shape)
                value = resized
        if value.shape != shapes[name]:
            if HEADS.match(official):
                report.dropped.append(name)
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
        CheckpointError: see `read` and `adapt`.
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
