"""What detectors on the large network change (ViTDet, appendix A.2)."""

large = dict(
    backbone=dict(
        arch='large',
        drop_path_rate=0.4,
        global_blocks=(5, 11, 17, 23),
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_large_patch16_224_pt1k.pth'
        ),
    ),
    neck=dict(in_channels=1024),
)
layer_decay_rate = 0.8
