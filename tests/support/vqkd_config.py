from beitv2_mm.models import TimmTeacher, VQKDTokenizer

model = dict(
    type=VQKDTokenizer,
    encoder=dict(
        arch=dict(embed_dims=32, num_layers=3, num_heads=4, mlp_ratio=2.0),
        img_size=(64, 96),
        patch_size=16,
    ),
    decoder=dict(arch=dict(embed_dims=32, num_layers=1, num_heads=4, mlp_ratio=2.0)),
    quantizer=dict(num_codes=24, dim=8),
    target_dims=12,
    teacher=dict(type=TimmTeacher, model='vit_base_patch16_224.dino'),
)
