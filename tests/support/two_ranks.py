"""What the processes of tests/test_distributed.py run; spawned, so it must be importable."""

from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.structures import BaseDataElement
from torch import Tensor

from beitv2_mm.engine.hooks.compile import compile_parts
from beitv2_mm.generation import ImageQualityMetric, PixelDecoder
from beitv2_mm.layers import Standardize, VectorQuantizer
from beitv2_mm.models import BEiTV2Backbone
from beitv2_mm.multimodal import ImageTextModel, TextEncoder
from support import knn_case
from support.tiny import (
    ARCH,
    NUM_CODES,
    build_pretrainer,
    build_tokenizer,
    cifar_images,
    masks,
    teacher_config,
    tokenizer_config,
)

STEPS = 20
BATCH = 8  # of all ranks together
State = dict[str, Tensor]


def own_share(batch: Tensor, rank: int, ranks: int) -> Tensor:
    """Items r, r + n, ... as mmengine's DefaultSampler deals them out."""
    return batch[rank::ranks]


def kmeans(rank: int, ranks: int) -> State:
    """Codebook and counts that k-means alone gives (decay 1: no EMA), 10 codes without latents."""
    torch.manual_seed(100 + rank)  # nothing may hang on a common seed
    latents = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))
    state = {}
    for num_codes in (8, 40):
        quantizer = VectorQuantizer(num_codes, 4, decay=1.0)
        quantizer(own_share(latents, rank, ranks))
        state |= {f'{k}.{num_codes}': v for k, v in quantizer.state_dict().items()}
    return state


def non_finite(rank: int, ranks: int) -> State:
    """A codebook after two steps, then after three with a NaN in one latent of one rank."""
    torch.manual_seed(0)
    quantizer = VectorQuantizer(24, 4, kmeans_init=False, revive_after=2)
    latents = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))
    bad = latents.clone()
    bad[ranks - 1, 2] = torch.nan
    state = {}
    for name, batches in dict(before=[latents] * 2, after=[bad] * 3, later=[latents] * 2).items():
        for batch in batches:
            quantizer(own_share(batch, rank, ranks))
        state |= {f'{name}.{k}': v.clone() for k, v in quantizer.state_dict().items()}
    return state


def standardize(rank: int, ranks: int) -> State:
    layer = Standardize(3)
    for step in range(3):
        batch = torch.randn(8, 3, generator=torch.Generator().manual_seed(step)) * 5 + step
        out = layer(own_share(batch, rank, ranks))
    return {**layer.state_dict(), 'out': out}


def train(rank: int, ranks: int, folder: Path, **quantizer: object) -> State:
    """20 steps of a tokenizer with a real teacher; losses (STEPS, 3) and the whole state."""
    model = build_tokenizer(
        teacher_config(folder),
        standardize_target=True,
        quantizer=dict(num_codes=NUM_CODES, dim=8, **quantizer),
    ).train()
    torch.manual_seed(100 + rank)
    net = MMDistributedDataParallel(model, broadcast_buffers=False) if ranks > 1 else model
    optimizer = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-3))
    images = cifar_images(20) * 255
    losses = []
    for step in range(STEPS):
        batch = images[torch.randperm(20, generator=torch.Generator().manual_seed(step))[:BATCH]]
        logs = net.train_step(
            dict(inputs=list(own_share(batch, rank, ranks)), data_samples=None), optimizer
        )
        losses.append(
            torch.stack([logs[name] for name in ('loss_commitment', 'loss_cosine', 'cosine')])
        )
    return {'losses': torch.stack(losses), **model.state_dict()}


def pretrain(rank: int, ranks: int, compiled: bool = False) -> State:
    """3 steps of masked image modelling; DDP would raise over a parameter without gradient."""
    model = build_pretrainer(with_cp='selective').train()
    net = (
        MMDistributedDataParallel(
            model,
            broadcast_buffers=False,
            find_unused_parameters=False,
            bucket_cap_mb=0.01 if compiled else None,  # the graph is split by buckets
        )
        if ranks > 1
        else model
    )
    if compiled:
        dist._DEFAULT_FIRST_BUCKET_BYTES = 1  # of the compiler, in this process
        compile_parts(model, backend='aot_eager')  # which tries a backward pass beneath DDP first
    optimizer = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-3))
    inputs, data_samples = list(cifar_images(4) * 255), [BaseDataElement(mask=m) for m in masks(4)]
    for _ in range(3):
        batch = dict(inputs=inputs[rank::ranks], data_samples=data_samples[rank::ranks])
        net.train_step(batch, optimizer)
    if compiled:
        assert model.losses_at.compiled is not None  # it has not fallen back
        del model.losses_at, model.logits_at
    return model.state_dict()


def image_text(rank: int, ranks: int, loss: str) -> State:
    """5 steps of contrastive training; two of the four captions are equal."""
    torch.manual_seed(0)
    model = ImageTextModel(
        backbone=dict(
            type=BEiTV2Backbone, arch=ARCH, img_size=32, patch_size=8, out_type='avg_featmap'
        ),
        text=dict(type=TextEncoder, vocabulary=20, embed_dims=16, num_layers=1, num_heads=2),
        dims=8,
        loss=loss,
    )
    model.init_weights()
    net = MMDistributedDataParallel(model, broadcast_buffers=False) if ranks > 1 else model
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    images = list((cifar_images(4) * 255).split(1))
    texts = [
        torch.tensor(text) for text in ([2, 3, 4, 0], [5, 6, 0, 0], [2, 3, 4, 0], [7, 8, 9, 2])
    ]
    for _ in range(5):
        batch = dict(
            inputs=[image[0] for image in images[rank::ranks]],
            data_samples=[BaseDataElement(text_ids=ids) for ids in texts[rank::ranks]],
        )
        net.train_step(batch, optimizer)
    return model.state_dict()


def pixels(rank: int, ranks: int, folder: Path) -> State:
    """5 steps of a pixel decoder with all its losses, and the quality of what it then decodes."""
    torch.manual_seed(0)
    model = PixelDecoder(
        tokenizer_config(),
        dict(arch=ARCH),
        width=4,
        teacher=teacher_config(folder),
        discriminator=dict(width=4, depth=2),
    )
    model.init_weights()
    net = MMDistributedDataParallel(model, broadcast_buffers=False) if ranks > 1 else model
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    images = own_share(cifar_images(BATCH), rank, ranks)
    samples = [BaseDataElement() for _ in images]
    for _ in range(5):
        net.train_step(dict(inputs=list(images * 255), data_samples=samples), optimizer)
    metric = ImageQualityMetric(teacher_config(folder))
    with torch.no_grad():
        metric.process({}, [sample.to_dict() for sample in model.eval().predict(images, samples)])
    quality = {name: torch.tensor(value) for name, value in metric.evaluate(BATCH).items()}
    return {**model.state_dict(), **quality}


def everything(rank: int, ranks: int, folder: Path) -> dict[str, State]:
    return {
        'kmeans': kmeans(rank, ranks),
        'non_finite': non_finite(rank, ranks),
        'standardize': standardize(rank, ranks),
        'train': train(rank, ranks, folder),
        'pretrain': pretrain(rank, ranks),
        'pretrain_compiled': pretrain(rank, ranks, compiled=True),
        'knn': knn_case.evaluate(19),  # an odd number: one rank gets a sample twice
        'sigmoid': image_text(rank, ranks, 'sigmoid'),
        'softmax': image_text(rank, ranks, 'softmax'),
        'pixels': pixels(rank, ranks, folder),
        'revive': train(rank, ranks, folder, revive_after=1),
    }


def process(rank: int, ranks: int, folder: Path) -> None:
    """Entry point of a spawned process; writes ``rank<r>.pth``."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/rendezvous', rank=rank, world_size=ranks)
    try:
        torch.save(everything(rank, ranks, folder), folder / f'rank{rank}.pth')
    finally:
        dist.destroy_process_group()
