"""Sizes of the networks, by name (paper appendix, tables 9 and 10) or as a dict."""

from typing import Any, NamedTuple


class Arch(NamedTuple):
    """Size of a transformer."""

    embed_dims: int
    num_layers: int
    num_heads: int
    mlp_ratio: float = 4.0
    layer_scale_init_value: float = 0.1


ARCHS = {
    'tiny': Arch(192, 12, 3),
    'small': Arch(384, 12, 6),
    'base': Arch(768, 12, 12),
    'large': Arch(1024, 24, 16, layer_scale_init_value=1e-5),
}


def get_arch(arch: str | dict[str, Any] | Arch) -> Arch:
    """Looks up a name, or checks a dict of the fields of `Arch` and fills in its defaults.

    >>> get_arch('base').embed_dims
    768
    >>> get_arch(dict(embed_dims=64, num_layers=2, num_heads=4)).mlp_ratio
    4.0

    Raises:
        ValueError: an unknown name, or a dict with missing or unknown keys.
    """
    if isinstance(arch, Arch):
        return arch
    if isinstance(arch, dict):
        required = set(Arch._fields) - set(Arch._field_defaults)
        if required <= set(arch) <= set(Arch._fields):
            return Arch(**arch)
        raise ValueError(
            f'An arch dict has {sorted(required)} and may have {sorted(Arch._field_defaults)}, '
            f'but {sorted(arch)} was given.'
        )
    if arch not in ARCHS:
        raise ValueError(f'arch is one of {list(ARCHS)} or a dict, but {arch!r} was given.')
    return ARCHS[arch]
