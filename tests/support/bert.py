"""A small BERT with random weights, under the names of its files."""

import torch
from torch import Tensor

SIZES = dict(
    model_type='bert',
    hidden_act='gelu',
    vocab_size=30,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=12,
    pad_token_id=0,
)


def bert_weights() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = {
        'embeddings.word_embeddings.weight': (30, 16),
        'embeddings.position_embeddings.weight': (12, 16),
        'embeddings.token_type_embeddings.weight': (2, 16),
        'embeddings.LayerNorm.weight': (16,),
        'embeddings.LayerNorm.bias': (16,),
        'pooler.dense.weight': (16, 16),
    }
    for i in range(2):
        for part, (rows, columns) in {
            'attention.self.query': (16, 16),
            'attention.self.key': (16, 16),
            'attention.self.value': (16, 16),
            'attention.output.dense': (16, 16),
            'intermediate.dense': (64, 16),
            'output.dense': (16, 64),
        }.items():
            shapes[f'encoder.layer.{i}.{part}.weight'] = (rows, columns)
            shapes[f'encoder.layer.{i}.{part}.bias'] = (rows,)
        for part in ('attention.output.LayerNorm', 'output.LayerNorm'):
            shapes[f'encoder.layer.{i}.{part}.weight'] = (16,)
            shapes[f'encoder.layer.{i}.{part}.bias'] = (16,)
    return {name: torch.randn(shape, generator=random) * 0.3 for name, shape in shapes.items()}
