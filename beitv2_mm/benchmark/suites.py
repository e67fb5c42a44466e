"""The subcommands of ``tools/benchmark.py``: name -> function that lists their work."""

from collections.abc import Callable

from beitv2_mm.benchmark.backbone import Backbone, backbone
from beitv2_mm.benchmark.data import data
from beitv2_mm.benchmark.pretrain import Pretrain, pretrain
from beitv2_mm.benchmark.segment import segment
from beitv2_mm.benchmark.tokenizer import Quantizer, tokenizer
from beitv2_mm.benchmark.work import Settings, Work
from beitv2_mm.benchmark.workers import memory


def scaling(settings: Settings) -> list[Work]:
    """Varies the image size, the batch size and the number of codes, one after the other."""
    batch = settings.batch_size or 4
    sizes = settings.sizes(224, 384, 512)
    works: list[Work] = [Backbone(settings, size, batch, True) for size in sizes]
    works += [Pretrain(settings, sizes[0], batch * factor) for factor in (1, 2, 4)]
    codebooks = (settings.num_codes // 8, settings.num_codes, settings.num_codes * 8)
    works += [Quantizer(settings, 2 * batch, codes) for codes in codebooks]
    return works


SUITES: dict[str, Callable[[Settings], list[Work]]] = dict(
    backbone=backbone,
    pretrain=pretrain,
    tokenizer=tokenizer,
    segment=segment,
    data=data,
    memory=memory,
    scaling=scaling,
)
