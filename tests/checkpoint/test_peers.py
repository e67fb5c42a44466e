"""Weights of mmpretrain, timm and mmseg give the same numbers here, and go back strictly."""

import pytest
import timm
import torch
from mmpretrain.models import BEiTPretrainViT, BEiTV2Head, BEiTV2Neck, BEiTViT, LinearClsHead
from mmpretrain.models.selfsup.beit import VQKD
from torch import Tensor, nn

from beitv2_mm.checkpoint import CheckpointError, adapt, convert, load
from beitv2_mm.models import ARCHS, BEiTV2Backbone, VQKDTokenizer
from support import nets

EPS = dict(type='LN', eps=1e-6)
IMAGE = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def back(module: nn.Module, to: str, peer: nn.Module, prefix: str = '') -> None:
    """Our weights load strictly in a peer, which then has exactly its first weights again."""
    before = {name: value.clone() for name, value in peer.state_dict().items()}
    conversion = convert(module.state_dict(), to)
    nets.randomize(peer, seed=7)
    peer.load_state_dict(conversion.state_dict, strict=True)
    for name, value in before.items():
        assert torch.equal(peer.state_dict()[name], value), name


def close(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > 1e-2
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def beit(**options: object) -> BEiTViT:
    """mmpretrain's fine-tuned layout. Its own default eps of the norms is not BEiT's."""
    return BEiTViT(arch=nets.PEER_ARCH, img_size=64, norm_cfg=EPS, final_norm=False, **options)


class Parts(nn.Module):
    """The modules of an mm model that are in its state dict."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def test_mmpretrain_classifier() -> None:
    peer = nets.randomize(Parts(backbone=beit(), head=LinearClsHead(10, 32)))
    ours = nets.classifier(seed=3)
    report = load(ours, peer.state_dict())
    assert not report.missing and not report.unexpected and not report.resized
    features = peer.backbone(IMAGE)
    close(ours.backbone(IMAGE)[0], features[0])
    close(ours(IMAGE), peer.head(features))
    back(ours, 'mmpretrain', peer)


def test_mmpretrain_backbone_alone() -> None:
    peer = nets.randomize(beit(out_type='raw'))
    ours = nets.backbone(seed=3, out_type='raw', final_norm=False)
    assert not load(ours, peer.state_dict()).missing
    close(ours(IMAGE)[0], peer(IMAGE)[0])
    back(ours, 'mmpretrain', peer)


def mmpretrain_mim(neck: bool) -> Parts:
    backbone = BEiTPretrainViT(
        arch=nets.PEER_ARCH, img_size=64, out_indices=[1, 2], final_norm=not neck, norm_cfg=EPS
    )
    parts = dict(
        backbone=backbone,
        head=BEiTV2Head(32, 24, loss=dict(type='CrossEntropyLoss')),
    )
    if neck:
        parts['neck'] = BEiTV2Neck(num_layers=2, early_layers=2, backbone_arch=nets.PEER_ARCH)
    return nets.randomize(Parts(**parts))


def test_mmpretrain_pretraining() -> None:
    peer = mmpretrain_mim(neck=True)
    ours = nets.pretrainer(seed=3)
    report = load(ours, peer.state_dict())
    assert not report.missing and not report.unexpected
    mask = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(2)) < 0.4
    latents = peer.backbone(IMAGE, mask)
    main, aggregated = peer.neck(latents, rel_pos_bias=peer.backbone.shared_rel_pos_bias)
    logits = ours.head(**ours.masked_tokens(IMAGE, mask))
    close(logits['main'], peer.head.cls_head(main[mask.flatten(1)]))
    close(logits['aggregation'], peer.head.cls_head(aggregated[mask.flatten(1)]))
    back(ours, 'mmpretrain', peer)


def test_mmpretrain_pretraining_without_neck() -> None:
    peer = mmpretrain_mim(neck=False)
    ours = nets.pretrainer(seed=3, aggregation=False)
    assert not load(ours, peer.state_dict()).missing
    mask = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(2)) < 0.4
    tokens = peer.backbone(IMAGE, mask)[-1][:, 1:][mask.flatten(1)]
    logits = ours.head(**ours.masked_tokens(IMAGE, mask))
    close(logits['main'], peer.head.cls_head(tokens))
    back(ours, 'mmpretrain', peer)


def test_two_final_norms_are_refused() -> None:
    peer = mmpretrain_mim(neck=True)
    peer.backbone.ln1 = nn.LayerNorm(32)
    with pytest.raises(
        CheckpointError, match=r"ln1\.weight' and .*norm\.weight|norm\.weight' and .*ln1\.weight"
    ):
        adapt(peer.state_dict(), nets.pretrainer())


def mmpretrain_vqkd() -> VQKD:
    encoder = dict(
        arch=nets.PEER_ARCH,
        img_size=64,
        norm_cfg=EPS,
        final_norm=True,
        out_type='featmap',
        use_abs_pos_emb=True,
        use_rel_pos_bias=False,
        layer_scale_init_value=0.0,
    )
    vqkd = nets.randomize(VQKD(encoder, num_embed=24, embed_dims=8))
    vqkd.quantize.embedding.initted.fill_(1)
    return vqkd


def test_mmpretrain_tokenizer() -> None:
    peer = mmpretrain_vqkd()
    weights = {name: value.clone() for name, value in peer.state_dict().items()}
    ours = nets.tokenizer(seed=3)
    report = load(ours, weights)
    assert all(n.startswith(('decode', 'quantize.idle_steps')) for n in report.missing)
    assert not report.unexpected
    assert bool(ours.quantize.initialized)
    image = (IMAGE + 1) / 2
    codes = ours.get_codes(image)
    assert torch.equal(codes, peer.get_tokens(image * 2 - 1)['token'])
    assert len(codes.unique()) > 3
    peer.load_state_dict(weights)  # asking it for codes has moved its statistics
    back(ours, 'mmpretrain', peer)


def test_encoder_and_target_generator_by_prefix() -> None:
    peer = mmpretrain_vqkd()
    generator = {f'target_generator.{name}': value for name, value in peer.state_dict().items()}
    encoder = nets.backbone(seed=3, position='absolute', layer_scale_init_value=0)
    report = load(encoder, generator, prefix='target_generator.encoder')
    assert not report.missing and not report.unexpected
    tokens = peer.encoder(IMAGE)[0].flatten(2).transpose(1, 2)
    close(encoder.forward_patches(IMAGE), tokens)
    ours = nets.tokenizer(seed=3)
    load(ours, generator, prefix='target_generator')
    assert torch.equal(ours.encoder.fc_norm.weight, peer.encoder.ln1.weight)
    with pytest.raises(CheckpointError, match=r"starts with 'teacher\.'.*target_generator"):
        load(ours, generator, prefix='teacher')


def test_mmseg_backbone() -> None:
    from mmseg.models.backbones import BEiT

    peer = nets.randomize(
        BEiT(
            img_size=(64, 64),
            patch_size=16,
            embed_dims=32,
            num_layers=3,
            num_heads=4,
            mlp_ratio=2,
            out_indices=(0, 2),
            qv_bias=True,
            norm_cfg=EPS,
            init_values=0.1,
        )
    )
    ours = nets.backbone(seed=3, out_type='featmap', out_indices=(0, 2))
    weights = {f'backbone.{name}': value for name, value in peer.state_dict().items()}
    weights['decode_head.conv_seg.weight'] = torch.zeros(5, 32, 1, 1)
    report = load(ours, weights)
    assert not report.missing
    assert report.unexpected == ['decode_head.conv_seg.weight']
    for mine, theirs in zip(ours(IMAGE), peer(IMAGE), strict=True):
        close(mine, theirs)


@pytest.mark.parametrize('arch', ['base', 'large'])
def test_timm(arch: str) -> None:
    peer = nets.randomize(timm.create_model(f'beitv2_{arch}_patch16_224'))
    with torch.device('meta'):
        ours = BEiTV2Backbone(arch)
    ours = ours.to_empty(device='cpu').eval()
    adapted, report = adapt(peer.state_dict(), ours)
    assert not report.missing and report.unexpected == ['head.weight', 'head.bias']
    ours.load_state_dict(adapted, strict=True, assign=True)
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = peer.head(ours(image)[0])
        close(logits, peer(image))
    assert ours.embed_dims == ARCHS[arch].embed_dims
    own = {f'backbone.{n}': v for n, v in ours.state_dict().items()}
    own |= {f'head.fc.{n}': v for n, v in peer.head.state_dict().items()}
    with torch.device('meta'):
        empty = timm.create_model(f'beitv2_{arch}_patch16_224')
    empty.load_state_dict(convert(own, 'timm').state_dict, strict=True, assign=True)


def test_timm_reads_a_pretraining_checkpoint() -> None:
    """Its backbone with per-block tables and the final norm, which timm has for CLS pooling."""
    ours = nets.pretrainer()
    peer = timm.models.beit.Beit(
        img_size=64,
        embed_dim=32,
        depth=3,
        num_heads=4,
        mlp_ratio=2,
        init_values=0.1,
        use_rel_pos_bias=True,
        use_abs_pos_emb=False,
        num_classes=0,
        global_pool='token',
    ).eval()
    conversion = convert(ours.state_dict(), 'timm')
    peer.load_state_dict(conversion.state_dict, strict=True)
    close(ours.backbone(IMAGE)[0], peer.forward_features(IMAGE))
    assert (
        'head.lm_head.weight' in conversion.dropped and 'backbone.mask_token' in conversion.dropped
    )
    with pytest.raises(CheckpointError, match='tokenizer, and timm has none'):
        convert(VQKDTokenizer(nets.ENCODER, nets.DECODER).state_dict(), 'timm')
