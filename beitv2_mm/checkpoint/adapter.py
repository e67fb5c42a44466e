"""The tensors of any known source -> those that a module's ``load_state_dict`` takes.

    state_dict, report = adapt(state_dict, module)   # pure
    report = load(module, 'beitv2_base_patch16_224_pt1k.pth')

The module stays unchanged until every tensor is known to fit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mmengine.logging import print_log
from torch import Tensor, nn

from beitv2_mm.checkpoint.files import Source, open_checkpoint
from beitv2_mm.checkpoint.grids import resize
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
from beitv2_mm.layers.position import Grid

Shapes = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass
class Report:
    """The result of adapting, by names of the module; ``unexpected`` has official names."""

    loaded: list[str] = field(default_factory=list)
    prefix: str = ''  # of the tensors in the file
    notes: list[str] = field(default_factory=list)
    resized: dict[str, Shapes] = field(default_factory=dict)  # (old shape, new shape)
    copied: list[str] = field(default_factory=list)  # from the shared bias table
    dropped: dict[str, Shapes] = field(default_factory=dict)  # heads: (file, module)
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
            f'  dropped, because the shape differs: {k}, {old} in the file, {new} in the model, '
            'which keeps its initial values'
            for k, (old, new) in self.dropped.items()
        ]
        for word, names in (
            ('missing, so that they keep their initial values', self.missing),
            ('only in the file', self.unexpected),
        ):
            if names:
                lines.append(f'  {word}: ' + shown(names, 12).replace("'", ''))
        return '\n'.join(lines)


def _fit(name: str, value: Tensor, own: Tensor, module: nn.Module, source: Grid | None) -> Tensor:
    """Reshapes or resizes a flag, position tensor or patch embedding to the shape of ``own``.

    Other tensors, and tensors that cannot be made to fit, are returned unchanged.
    """
    if value.shape == own.shape and source is None:
        return value
    if value.numel() == own.numel() == 1:  # flags are scalars here, and (1,) elsewhere
        return value.reshape(own.shape)
    if name.endswith('patch_embed.proj.weight') and value.ndim == own.ndim == 4:
        is_float = value.is_floating_point() and value.numel() and not value.is_meta
        return fit_patch_embed(value, own.shape) if is_float and len(value) == len(own) else value
    target = getattr(module.get_submodule(name.rpartition('.')[0]), 'grid', None)
    if target is None or value.ndim != own.ndim or value.shape[-1] != own.shape[-1]:
        return value
    return resize(name, value, target, source)


def _flaw(value: Tensor, own: Tensor) -> str:
    """What is wrong with a tensor of the right shape, or ''."""
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
    """Turns the tensors of any known source into those that ``module.load_state_dict`` takes.

    Prefixes are removed; a shared bias table is copied to blocks that have a table each; bias
    tables, position embeddings and the patch embedding are resized; heads of another shape are
    dropped. The arguments are not changed.

    Args:
        source_grid: (rows, columns) of the source's patches; needed only if it is not square.
        prefix: take only tensors whose names start with it; None finds the prefix.
        ema: take the moving average of the weights.

    Raises:
        CheckpointError: the source has no tensor in common with the module, has tensors of another
            shape or kind, or has NaN; or several of its networks fit.
    """
    check_plain(state_dict)
    own = module.state_dict()
    wanted = official_names(own)
    network = network_in(state_dict, wanted, prefix, ema)
    source = to_official(network.tensors)
    report = Report(prefix=network.prefix, notes=[network.note] if network.note else [])
    adapted, wrong = {}, []
    for official, name, value in _matches(wanted, source, report):
        fitted = _fit(name, value, own[name], module, source_grid)
        shape, expected = tuple(fitted.shape), tuple(own[name].shape)
        if fitted is not value and fitted.numel() > 1:
            report.resized[name] = tuple(value.shape), shape
        if shape == expected:
            adapted[name] = fitted
        elif HEADS.match(official):
            report.dropped[name] = shape, expected
        else:
            wrong.append(f'{name}: {shape}, expected {expected}')
    _leave_out_other_networks(adapted, own, report)
    report.loaded = list(adapted)
    if wrong:
        raise CheckpointError(
            f'The checkpoint is of another model{proposal(source, module)}. '
            f'Shapes that differ: {_first(wrong)}'
        )
    flaws = [f'{k}: {flaw}' for k, value in adapted.items() if (flaw := _flaw(value, own[k]))]
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


def _leave_out_other_networks(adapted: StateDict, own: StateDict, report: Report) -> None:
    """Drops what another network in the place of a transformer of the module has under equal names,
    such as the class token of the ViT in published weights of BLIP: the rest of it went nowhere."""
    first = 'blocks.0.attn.qkv.weight'
    for prefix in [name.removesuffix(first) for name in own if name.endswith(f'.{first}')]:
        given = [name for name in adapted if name.startswith(prefix)]
        if given and prefix + first not in adapted:
            for name in given:
                del adapted[name]
            report.missing += given
            report.notes.append(f'{prefix[:-1]} keeps its weights: the file has another network')


def _matches(
    wanted: Mapping[str, str], source: StateDict, report: Report
) -> Iterator[tuple[str, str, Tensor]]:
    """Official name, name and tensor of each match; the report lists all other names."""
    for official, name in wanted.items():
        value = source.get(official)
        if value is None and official.endswith(f'attn.{BIAS_TABLE}') and SHARED_TABLE in source:
            value = source[SHARED_TABLE]
            report.copied.append(name)
        if value is None:
            report.missing.append(name)
        else:
            yield official, name, value
    used = wanted.keys() | ({SHARED_TABLE} if report.copied else set())
    report.unexpected = [name for name in source if name not in used]


def _first(lines: list[str]) -> str:
    return '; '.join(lines[:5]) + (f' and {len(lines) - 5} more' if len(lines) > 5 else '')


def load(
    module: nn.Module,
    source: Source,
    prefix: str | None = None,
    source_grid: Grid | None = None,
    ema: bool = False,
) -> Report:
    """Loads a path, URL or state dict into ``module`` and logs the report.

    Args:
        prefix: take only tensors whose names start with it, such as 'encoder.' of a tokenizer; None
            finds the prefix.
        ema: take the moving average of the weights, an error if the file has none.

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
