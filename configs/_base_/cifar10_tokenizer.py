"""The tokenizer that tools/quickstart.py trains on CIFAR-10: 512 codes, 8 x 8 a picture."""

from beitv2_mm.models import VQKDTokenizer

tokenizer = dict(
    type=VQKDTokenizer,
    encoder=dict(arch=dict(embed_dims=96, num_layers=2, num_heads=4), img_size=32, patch_size=4),
    decoder=dict(arch=dict(embed_dims=96, num_layers=1, num_heads=4)),
    quantizer=dict(num_codes=512, dim=16),
    target_dims=112,
    init_cfg=dict(type='Pretrained', checkpoint='quickstart_out/tokenizer/epoch_1.pth'),
)
