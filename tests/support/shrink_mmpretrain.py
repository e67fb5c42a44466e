"""What it takes to run configs of mmpretrain's multimodal models here: vocabularies and language
models of the tests' size in local folders, and questions and captions of CIFAR-10."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from tokenizers import ByteLevelBPETokenizer

from support.tiny import CIFAR

FILES = sorted(CIFAR.glob('*/*.png'))
PROMPT = 'a picture of '
CAPTIONS = [f'{PROMPT}a {file.parent.name}' for file in FILES]
QUESTION = 'what is it'
EYE = dict(arch=dict(embed_dims=48, num_layers=2, num_heads=4), img_size=32, patch_size=8)
BERT = dict(
    hidden_size=48,
    intermediate_size=96,
    num_attention_heads=4,
    num_hidden_layers=2,
    encoder_width=48,
    attention_probs_dropout_prob=0.0,
    hidden_dropout_prob=0.0,
)


def write_bert(folder: Path) -> int:
    """Writes BERT's vocabulary and settings; returns the number of words with BLIP's two."""
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    words = [*special, *sorted({*' '.join(CAPTIONS).split(), *QUESTION.split()})]
    folder.mkdir()
    (folder / 'vocab.txt').write_text('\n'.join(words))
    settings = dict(BERT, model_type='bert', vocab_size=len(words), max_position_embeddings=32)
    (folder / 'config.json').write_text(json.dumps(settings))
    return len(words) + 2


def write_causal_model(folder: Path, kind: str) -> None:
    """Writes a language model with random weights, and a tokenizer for it.

    Args:
        kind: 'OPT' or 'Llama'.
    """
    import transformers

    folder.mkdir()
    tokenizer = ByteLevelBPETokenizer()
    special = ['<pad>', '<s>', '</s>', '<unk>']
    tokenizer.train_from_iterator(CAPTIONS, vocab_size=400, special_tokens=special)
    tokenizer.save_model(str(folder))
    names = dict(zip(('pad_token', 'bos_token', 'eos_token', 'unk_token'), special, strict=True))
    (folder / 'tokenizer_config.json').write_text(
        json.dumps(dict(tokenizer_class='GPT2Tokenizer', **names))
    )
    sizes = dict(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    more = dict(ffn_dim=96, word_embed_proj_dim=48) if kind == 'OPT' else dict(intermediate_size=96)
    settings = getattr(transformers, f'{kind}Config')(**sizes, **more)
    torch.manual_seed(0)
    getattr(transformers, f'{kind}ForCausalLM')(settings).save_pretrained(folder)


def write_data(folder: Path) -> None:
    """Writes captions and questions in the layouts that mmpretrain's data sets read."""
    (folder / 'images').mkdir()
    for i, file in enumerate(FILES):
        shutil.copy(file, folder / f'images/{i:012d}.png')
    names = [f'images/{i:012d}.png' for i in range(len(FILES))]
    captions = list(zip(names, CAPTIONS, strict=True))
    classes = [file.parent.name for file in FILES]
    files = {
        'captions': [dict(image=name, caption=caption) for name, caption in captions],
        'retrieval': dict(
            images=[dict(id=i, coco_url=f'folder/{name}') for i, name in enumerate(names)],
            annotations=[dict(id=i, image_id=i, caption=c) for i, c in enumerate(CAPTIONS)],
        ),
        'questions': dict(
            questions=[
                dict(image_id=i, question_id=i, question=QUESTION) for i in range(len(FILES))
            ]
        ),
        'answers': dict(
            annotations=[
                dict(question_id=i, answers=[dict(answer=name)]) for i, name in enumerate(classes)
            ]
        ),
    }
    for name, content in files.items():
        (folder / f'{name}.json').write_text(json.dumps(content))


def shrink_data(dataset: Any, folder: Path) -> None:
    """Points a data set of mmpretrain to what `write_data` wrote; images are of 32 pixels."""
    kind = dataset.type
    dataset.data_root = str(folder)
    if kind != 'COCORetrieval':  # whose recall counts ten
        dataset.indices = 8
    if kind == 'COCOVQA':
        answers = 'answers.json' if dataset.get('ann_file') else ''
        dataset.update(data_prefix='images', question_file='questions.json', ann_file=answers)
    else:
        dataset.ann_file = dict(COCOCaption='captions.json', COCORetrieval='retrieval.json')[kind]
    for step in dataset.pipeline:
        if step.type in ('RandomResizedCrop', 'Resize'):
            step.scale = 32 if step.type == 'RandomResizedCrop' else (32, 32)


def shrink_mmpretrain(cfg: Config, folder: Path) -> None:
    """Changes ``cfg`` in place and writes its data, vocabularies and language model below
    ``folder``, which must be empty."""
    write_data(folder)
    count = write_bert(folder / 'bert')
    write_causal_model(folder / 'causal', 'Llama' if cfg.model.type == 'Llava' else 'OPT')
    shrink_model(cfg.model, folder, count)
    if cfg.model.type == 'Llava':
        cfg.model.mm_hidden_size = 48
    for name in ('train', 'val', 'test'):
        loader = cfg.get(f'{name}_dataloader')
        if loader:
            loader.update(batch_size=4, num_workers=0, persistent_workers=False)
            shrink_data(loader.dataset, folder)
    if cfg.get('test_evaluator', {}).get('type') == 'ReportVQA':
        cfg.test_evaluator.file_path = str(folder / 'found.json')
    cfg.randomness = dict(seed=0)
    cfg.load_from, cfg.work_dir = None, str(folder / 'work')
    cfg.experiment_name = f'{folder.name}_{cfg.model.type}'
    if cfg.get('train_cfg'):
        cfg.train_cfg.max_epochs = 1
        cfg.param_scheduler = None
    if cfg.get('test_evaluator', {}).get('type') == 'COCOCaption':  # asks for Java
        found = dict(type='DumpResults', out_file_path=str(folder / 'found.pkl'))
        cfg.test_evaluator = found
        if cfg.get('val_evaluator'):
            cfg.val_evaluator = found


def shrink_model(model: Any, folder: Path, count: int) -> None:
    """Changes the config of a model in place: each language model and vocabulary becomes one of
    ``folder``, each width and number of layers that of the tests."""
    if isinstance(model, list):
        for part in model:
            shrink_model(part, folder, count)
        return
    if not isinstance(model, dict):
        return
    kind = str(model.get('type')).split('.')[-1]
    if kind == 'BEiTV2Backbone':
        model.update(EYE, init_cfg=None)
        model.pop('pretrained', None)
        if model.get('frozen_stages'):
            model.frozen_stages = 2
    elif kind == 'Linear':
        model.update(in_features=48, out_features=16)
    elif kind == 'LinearClsHead':
        model.update(in_channels=48, num_classes=48)
    elif kind == 'VQAGenerationHead':
        model.update(inference_method='generate', answer_list_path=None)
    elif kind == 'BlipRetrieval':
        model.topk = 4
    elif kind == 'ITCHead':
        model.update(embed_dim=16, queue_size=20)
    elif kind == 'ITMHead':
        model.update(hidden_size=48)
    elif kind == 'Qformer':
        model.update(model_style=str(folder / 'bert'), vision_model_width=48, num_query_token=4)
    elif 'name_or_path' in model:
        model.name_or_path = str(folder / ('bert' if kind == 'BlipTokenizer' else 'causal'))
    elif 'med_config' in model:
        model.med_config.update(BERT, vocab_size=count, max_position_embeddings=64)
    for value in model.values():
        shrink_model(value, folder, count)
