"""mmpretrain's own multimodal models with this package's backbone, by config alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from mmpretrain.utils.dependency import WITH_MULTIMODAL

from support.tiny import CIFAR, cifar_images

pytestmark = [
    pytest.mark.skipif(
        not WITH_MULTIMODAL, reason='needs a transformers that mmpretrain knows, 4.28 to 4.51'
    ),
    pytest.mark.not_pretended(reason="mmpretrain's tokenizers make tensors on a device by name"),
]
WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'picture', 'of', 'photo']
EYE = dict(
    type='beitv2_mm.BEiTV2Backbone',
    arch=dict(embed_dims=48, num_layers=2, num_heads=4),
    img_size=32,
    patch_size=8,
    out_type='raw',
)


def bert(vocabulary: int, **settings: Any) -> dict:
    return dict(
        architectures=['BertModel'],
        attention_probs_dropout_prob=0.0,
        hidden_act='gelu',
        hidden_dropout_prob=0.0,
        hidden_size=48,
        initializer_range=0.02,
        intermediate_size=96,
        layer_norm_eps=1e-12,
        max_position_embeddings=32,
        model_type='bert',
        num_attention_heads=4,
        num_hidden_layers=2,
        pad_token_id=0,
        add_type_embeddings=False,
        vocab_size=vocabulary,
        encoder_width=48,
        add_cross_attention=True,
        **settings,
    )


@pytest.fixture
def tokenizer(tmp_path: Path) -> tuple[dict, int]:
    """A folder with the words of the captions, in BERT's format, and their number."""
    words = [*WORDS, *(folder.name for folder in sorted(CIFAR.iterdir()))]
    (tmp_path / 'vocab.txt').write_text('\n'.join(words))
    return dict(type='BlipTokenizer', name_or_path=str(tmp_path)), len(words) + 2


def batch(count: int = 20) -> dict:
    names = [file.parent.name for file in sorted(CIFAR.glob('*/*.png'))]
    samples = []
    for i in range(count):
        sample = DataSample()
        sample.gt_caption = f'a picture of a {names[i]}'
        sample.text, sample.image_id = sample.gt_caption, i
        sample.gt_image_id, sample.gt_text_id = [i], [i]  # of each text, and of the image
        sample.is_matched = True
        samples.append(sample)
    return dict(inputs=cifar_images(count) * 255, data_samples=samples)


def build(config: dict) -> torch.nn.Module:
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    pixels = dict(mean=[122.0, 116.0, 104.0], std=[68.0, 66.0, 70.0], to_rgb=False)
    model = MODELS.build(config | dict(data_preprocessor=pixels))
    model.init_weights()
    return model


def test_captions(tokenizer: tuple[dict, int]) -> None:
    """Sixty steps on twenty images, which are then captioned."""
    words, count = tokenizer
    decoder = dict(type='XBertLMHeadDecoder', med_config=bert(count))
    model = build(
        dict(
            type='BlipCaption',
            vision_encoder=EYE,
            tokenizer=words,
            decoder_head=dict(type='SeqGenerationHead', decoder=decoder),
            prompt='a picture of ',
            max_txt_len=12,
        )
    ).train()
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=3e-3))
    losses = [float(model.train_step(batch(), wrapper)['loss']) for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0]
    found = model.eval().test_step(batch())
    right = sum(sample.pred_caption == sample.gt_caption for sample in found)
    assert right > 10  # of twenty, ten classes


def test_retrieval(tokenizer: tuple[dict, int]) -> None:
    """Trains, and finds for each image the texts of all."""
    words, count = tokenizer
    linear = dict(type='Linear', in_features=48, out_features=16)
    model = build(
        dict(
            type='BlipRetrieval',
            tokenizer=words,
            vision_backbone=EYE,
            text_backbone=dict(type='XBertEncoder', med_config=bert(count)),
            vision_neck=linear,
            text_neck=linear,
            head=dict(type='ITCHead', embed_dim=16, queue_size=20),
            multimodal_head=dict(type='ITMHead', hidden_size=48, with_pooler=False),
            topk=8,
            max_txt_len=12,
        )
    ).train()
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=3e-3))
    losses = [model.train_step(batch(), wrapper) for _ in range(10)]
    assert {'itc_loss', 'itm_loss'} <= losses[0].keys()
    assert float(losses[-1]['loss']) < float(losses[0]['loss'])
    by_image, by_text = model.eval().test_step(batch())
    assert len(by_image) == len(by_text) == 20
    assert by_image[0].pred_score.shape == (20,)
