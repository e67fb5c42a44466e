"""Any known source -> what a module's ``load_state_dict`` takes.

    state_dict, report = adapt(state_dict, module)   # pure
    report = load(module, 'beitv2_base_patch16_224_pt1k.pth')

Nothing is loaded before everything is known to fit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt

from mmengine.logging import print_log
from torch import Tensor, nn

from beitv2_mm.checkpoint.files import Source, read
from beitv2_mm.checkpoint.names import (
    BIAS_TABLE,
    HEADS,
    SHARED_TABLE,
    StateDict,
    official_names,
    to_official,
)
from beitv2_mm.compat import CheckpointError
from beitv2_mm.layers.position import NUM_CLS_ROWS, Grid, resize_bias_table, resize_pos_embed

Shapes = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass
class Report:
    """What became of a checkpoint, in the names of the module (``unexpected``: official ones)."""

    loaded: list[str] = field(default_factory=list)
    resized: dict[str, Shapes] = field(default_factory=dict)  # from -> to
    copied: list[str] = field(default_factory=list)  # from the shared bias table
    dropped: dict[str, Shapes] = field(default_factory=dict)  # heads: the file's, the module's
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f'{len(self.loaded)} tensors loaded']
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
                more = f' and {len(names) - 12} more' if len(names) > 12 else ''
                lines.append(f'  {word}: {", ".join(names[:12])}{more}')
        return '\n'.join(lines)


def square_grid(patches: int, name: str) -> Grid:
    """(g, g) from the number of patches g * g."""
    side = isqrt(patches)
    if side * side != patches:
        raise CheckpointError(
            f'{name} comes from a grid that is not square, and its rows and columns cannot be '
            'told from its size. Pass source_grid=(rows, columns).'
        )
    return side, side


def table_grid(table: Tensor, name: str) -> Grid:
    """(g, g) from a bias table of (2 g - 1)^2 + 3 rows."""
    span = square_grid(len(table) - NUM_CLS_ROWS, name)[0]
    return (span + 1) // 2, (span + 1) // 2


def resize(name: str, value: Tensor, target: Grid, source: Grid | None = None) -> Tensor:
    """A bias table or position embedding for another patch grid; other tensors as they are.

    Args:
        source: grid that it was trained with; None for a square one.

    Raises:
        CheckpointError: its grid is not square, or not ``source``.
    """
    leaf = name.rpartition('.')[2]
    try:
        if leaf == BIAS_TABLE:
            return resize_bias_table(value, source or table_grid(value, name), target)
        if leaf == 'pos_embed':
            return resize_pos_embed(value, source or square_grid(value.shape[1] - 1, name), target)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f'{name}: {error}') from None
    return value


def _fit(name: str, value: Tensor, module: nn.Module, source: Grid | None) -> Tensor:
    """A position tensor made to fit the module that owns ``name``; other tensors as they are."""
    target = getattr(module.get_submodule(name.rpartition('.')[0]), 'grid', None)
    return value if target is None else resize(name, value, target, source)


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
    source = to_official(state_dict)
    own = module.state_dict()
    wanted = official_names(own)
    shapes = {name: value.shape for name, value in own.items()}
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
        if value.shape != shapes[name] or source_grid is not None:
            fitted = _fit(name, value, module, source_grid)
            if fitted is not value:
                report.resized[name] = tuple(value.shape), tuple(fitted.shape)
            if value.numel() == shapes[name].numel() == 1:  # flags are scalars here, (1,) elsewhere
                fitted = value.reshape(shapes[name])
            value = fitted
        if value.shape == shapes[name]:
            adapted[name] = value
        elif HEADS.match(official):
            report.dropped[name] = tuple(value.shape), tuple(shapes[name])
        else:
            wrong.append(f'{name}: {tuple(value.shape)}, expected {tuple(shapes[name])}')
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


def _below(state_dict: Mapping[str, Tensor], prefix: str) -> StateDict:
    """The tensors whose names start with ``prefix``, without it, under official names."""
    prefix = prefix.removesuffix('.') + '.'
    last = prefix[:-1].rpartition('.')[2] + '.'  # 'encoder.' tells what its norm is called
    inner = {
        last + name.removeprefix(prefix): value
        for name, value in state_dict.items()
        if name.startswith(prefix)
    }
    if not inner:
        raise CheckpointError(
            f'no tensor has a name that starts with {prefix!r}. It has {list(state_dict)[:3]}.'
        )
    return {name.removeprefix(last): value for name, value in to_official(inner).items()}


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
    where = 'the given state dict' if isinstance(source, Mapping) else str(source)
    try:
        if prefix:
            state_dict = _below(state_dict, prefix)
        adapted, report = adapt(state_dict, module, source_grid)
    except CheckpointError as error:
        raise CheckpointError(f'{where}: {error}') from None
    module.load_state_dict(adapted, strict=False)
    print_log(f'{type(module).__name__} from {where}: {report}', logger='current')
    return report
