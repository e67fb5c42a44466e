"""Finds the settings that would fit a checkpoint, for error messages."""

from collections.abc import Container, Mapping
from typing import Any

from torch import Tensor, nn

from beitv2_mm.checkpoint.names import BIAS_TABLE, CODEBOOK, SHARED_TABLE, to_official
from beitv2_mm.compat.safe_load import CheckpointError
from beitv2_mm.layers.arch import ARCHS

PARTS = ('', 'encoder.', 'decoder.')  # prefixes of the transformers in a network


def num_blocks(names: Container[str], part: str = '') -> int:
    """Number of blocks of a transformer, from official names."""
    count = 0
    while f'{part}blocks.{count}.norm1.weight' in names:
        count += 1
    return count


def arch_of(weights: Mapping[str, Tensor], part: str = '') -> str | dict[str, Any] | None:
    """The arch of a transformer from its tensors: a name, a dict, or None without blocks.

    The bias tables give the number of heads; without them, heads are assumed to have 64 channels,
    as in all published models.
    """
    depth = num_blocks(weights, part)
    fc1 = weights.get(f'{part}blocks.0.mlp.fc1.weight')
    if not depth or fc1 is None or fc1.ndim != 2 or not fc1.numel():
        return None
    dims, ratio = fc1.shape[1], fc1.shape[0] / fc1.shape[1]
    tables = (SHARED_TABLE, f'{part}blocks.0.attn.{BIAS_TABLE}')
    heads = next((weights[t].shape[-1] for t in tables if t in weights), max(dims // 64, 1))
    for name, arch in ARCHS.items():
        if arch[:4] == (dims, depth, heads, ratio):
            return name
    found = dict(embed_dims=dims, num_layers=depth, num_heads=heads)
    return found if ratio == 4 else found | dict(mlp_ratio=ratio)


def proposal(weights: Mapping[str, Tensor], module: nn.Module) -> str:
    """Settings that fit the shapes of the weights, such as ": set arch='large'", or ''."""
    own = to_official(module.state_dict())
    settings = []
    for part in PARTS:
        arch = arch_of(weights, part)
        if arch and arch != arch_of(own, part) and num_blocks(own, part):
            name = f'{part.removesuffix(".")}=dict(arch={arch!r})' if part else f'arch={arch!r}'
            settings.append(name)
    codebooks = [side.get(CODEBOOK) for side in (weights, own)]
    if all(c is not None and c.ndim == 2 for c in codebooks):
        theirs, ours = (tuple(c.shape) for c in codebooks)  # type: ignore[union-attr]
        if theirs != ours:
            settings.append(f'quantizer=dict(num_codes={theirs[0]}, dim={theirs[1]})')
    return f': set {", ".join(settings)}' if settings else ''


def check_structure(
    weights: Mapping[str, Tensor], wanted: Container[str], module: nn.Module
) -> None:
    """Refuses weights that fit by shape, but with which ``module`` would compute something else.

    Raises:
        CheckpointError: blocks are missing, or positions, layer scale or the biases of attention
            are of another kind. The message gives the settings that fit.
    """
    for part in PARTS:
        there, here = num_blocks(weights, part), num_blocks(wanted, part)
        if not there or not here:
            continue
        first = f'{part}blocks.0.'
        if f'{first}attn.q_bias' in wanted and f'{first}attn.q_bias' not in weights:
            raise CheckpointError(
                'The checkpoint is of another network: its attention has no q_bias and v_bias '
                f'({first}attn), which BEiT needs.'
            )
        settings = []
        if there < here:
            settings.append(f'arch={arch_of(weights, part)!r}')
        fitting = position_of(weights, part)
        if fitting and not _fits_position(fitting, position_of(wanted, part)):
            settings.append(f'position={fitting!r}')
        scaled = [f'{first}gamma_1' in names for names in (weights, wanted)]
        if scaled == [False, True]:
            settings.append('layer_scale_init_value=0')
        elif scaled == [True, False]:
            settings.append('layer_scale_init_value=0.1 (any but 0)')
        if settings:
            where = f' in {part[:-1]}' if part else ''
            raise CheckpointError(
                f'The checkpoint is of another {type(module).__name__}{where}: set '
                f'{", ".join(settings)} to load it.'
            )


def position_of(names: Container[str], part: str) -> str | None:
    """The kind of position tensors, or None if there are none."""
    kinds = dict(
        shared=f'{part}{SHARED_TABLE}',
        layerwise=f'{part}blocks.0.attn.{BIAS_TABLE}',
        absolute=f'{part}pos_embed',
    )
    return next((kind for kind, name in kinds.items() if name in names), None)


def _fits_position(theirs: str, ours: str | None) -> bool:
    """Whether the positions can be loaded: a shared table can be copied to each block."""
    return ours is None or theirs == ours or (theirs, ours) == ('shared', 'layerwise')
