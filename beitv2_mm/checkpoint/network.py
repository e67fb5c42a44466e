"""Finds one network in a file and takes wrappers and prefixes off its names."""

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from beitv2_mm.checkpoint.names import StateDict, official_name, shown, to_official
from beitv2_mm.checkpoint.transformers_names import from_transformers
from beitv2_mm.compat.safe_load import CheckpointError

# DDP, torch.compile, FSDP and activation checkpointing insert these parts anywhere in a name.
_WRAPPER = re.compile(
    r'(?<![^.])(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.'
)
_EMA = re.compile(r'(^|[._])ema([._]|$)')
_OF_BEIT = re.compile(
    r'((encoder|decoder)\.)?(blocks\.\d|patch_embed\.proj|cls_token$|pos_embed$|(fc_)?norm\.)'
    r'|(quantize|rel_pos_bias|(en|de)code_task_layer|lm_head)\.|cls_pt_|mask_token$|head\.\w+$'
)


class _AnyBEiT:
    """A container of all official names of networks of any size."""

    def __contains__(self, name: object) -> bool:
        return _OF_BEIT.match(str(name)) is not None


class Network(NamedTuple):
    """Tensors without wrappers and prefix, the prefix, and a note on moving averages (EMA)."""

    tensors: StateDict
    prefix: str
    note: str


def network_in(
    state_dict: Mapping[str, Tensor],
    wanted: Container[str] = _AnyBEiT(),
    prefix: str | None = None,
    ema: bool = False,
) -> Network:
    """The tensors of one network in a file.

    Args:
        wanted: official names of the network; by default those of any BEiT v2 network.
        prefix: take only tensors whose names start with it; None finds the prefix.
        ema: take the moving average, which is recognised by its names.

    Raises:
        CheckpointError: see `find_prefix`; or no tensor has the prefix.
    """
    tensors = from_transformers(unwrap(state_dict))
    note = ''
    if prefix is None:
        prefix, averages = find_prefix(tensors, wanted, ema)
        if ema and not averages:
            raise CheckpointError('There is no moving average (EMA): leave out ema=True.')
        if averages and not ema:
            note = (
                f'a moving average (EMA) is in the file too, under {shown(averages[:1])}: ema=True'
            )
    return Network(below(tensors, prefix) if prefix else tensors, prefix, note)


def below(tensors: StateDict, prefix: str) -> StateDict:
    """The tensors whose names start with ``prefix``, without it, under official names."""
    prefix = unwrap_name(prefix.removesuffix('.') + '.')
    last = prefix[:-1].rpartition('.')[2] + '.'  # below 'encoder.', the norm has another name
    inner = {
        last + name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
    if not inner:
        raise CheckpointError(
            f'no tensor has a name that starts with {prefix!r}. The names are [{shown(tensors)}].'
        )
    return {name.removeprefix(last): value for name, value in to_official(inner).items()}


def unwrap_name(name: str) -> str:
    """A name without the parts that wrappers of a module insert.

    >>> unwrap_name('module.backbone._orig_mod.blocks.0.attn.q_bias')
    'backbone.blocks.0.attn.q_bias'
    """
    return _WRAPPER.sub('', name)


def unwrap(state_dict: Mapping[str, Tensor]) -> StateDict:
    """The tensors by names without wrappers.

    Raises:
        CheckpointError: two names become the same.
    """
    names: dict[str, str] = {}
    for name in state_dict:
        other = names.setdefault(unwrap_name(name), name)
        if other != name:
            raise CheckpointError(f'{shown([other])} and {shown([name])} are the same parameter.')
    return {plain: state_dict[name] for plain, name in names.items()}


def find_prefix(
    names: Iterable[str], wanted: Container[str], ema: bool = False
) -> tuple[str, list[str]]:
    """The prefix with most of the official names ``wanted`` below it, or ''.

    Ordinary weights are preferred to moving averages (EMA), unless ``ema`` is set. Of nested
    prefixes ('model.' and 'model.backbone.'), the outer one is taken if it has as many names; of
    the encoder and decoder of a tokenizer, the encoder. Between other networks, such as a student
    and a teacher, the caller has to choose.

    Returns:
        The prefix, and the prefixes of moving averages in the file.

    Raises:
        CheckpointError: several networks fit.
    """
    counts: Counter[str] = Counter()
    for name in names:
        start = 0
        while True:
            if official_name(name[start:]) in wanted:
                counts[name[:start]] += 1
            if not (start := name.find('.', start) + 1):
                break
    averages = {prefix for prefix in counts if _EMA.search(prefix)}
    candidates = {p: n for p, n in counts.items() if (p in averages) == ema}
    if not candidates:
        return '', sorted(averages)
    best = min(candidates, key=lambda prefix: (-candidates[prefix], len(prefix)))
    rivals = [best]
    for prefix in sorted(candidates, key=len):
        nested = any(prefix.startswith(p) or p.startswith(prefix) for p in rivals)
        is_decoder = prefix.endswith('decoder.') and f'{prefix[:-8]}encoder.' in counts
        if not nested and not is_decoder and 2 * candidates[prefix] > candidates[best]:
            rivals.append(prefix)
    if len(rivals) > 1:
        found = ', '.join(f'{shown([p])} ({candidates[p]} tensors)' for p in rivals[:5])
        raise CheckpointError(
            f'Several networks in the file fit, under {found}: choose one by prefix=, such as '
            f'prefix={shown(rivals[:1])}.'
        )
    outer = {p for p in averages if not any(p != q and p.startswith(q) for q in averages)}
    return best, sorted(outer)
