arch = dict(embed_dims=96, num_heads=4, num_layers=4)
auto_scale_lr = dict(base_batch_size=32)
block_mask = dict(
    min_aspect=0.3,
    min_block=4,
    num_masked=26,
    patch_size=4,
    type='beitv2_mm.datasets.BlockwiseMask',
)
custom_hooks = [
    dict(type='beitv2_mm.engine.EpochSeedHook'),
    dict(type='beitv2_mm.engine.DivergenceGuardHook'),
    dict(type='beitv2_mm.engine.UnreadableImagesHook'),
    dict(type='beitv2_mm.engine.AdaptCheckpointHook'),
    dict(type='beitv2_mm.engine.RunPageHook'),
    dict(num_images=250, type='beitv2_mm.engine.PredictionPicturesHook'),
    dict(type='beitv2_mm.engine.AttentionPicturesHook'),
]
default_hooks = dict(
    checkpoint=dict(
        interval=1, max_keep_ckpts=3, minutes=30, type='beitv2_mm.engine.AtomicCheckpointHook'
    ),
    compile=dict(enabled=False, type='beitv2_mm.engine.CompileHook'),
    logger=dict(interval=1, type='mmengine.hooks.LoggerHook'),
    param_scheduler=dict(type='mmengine.hooks.ParamSchedulerHook'),
    sampler_seed=dict(type='mmengine.hooks.DistSamplerSeedHook'),
    timer=dict(type='mmengine.hooks.IterTimerHook'),
)
default_scope = None
env_cfg = dict(
    cudnn_benchmark=False,
    dist_cfg=dict(backend='nccl'),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
)
launcher = 'none'
load_from = None
log_level = 'INFO'
masked_val = [
    dict(type='beitv2_mm.datasets.LoadImageFromFile'),
    dict(
        min_aspect=0.3,
        min_block=4,
        num_masked=26,
        patch_size=4,
        type='beitv2_mm.datasets.BlockwiseMask',
    ),
    dict(type='mmpretrain.datasets.PackInputs'),
]
model = dict(
    backbone=dict(
        arch=dict(embed_dims=16, num_heads=2, num_layers=2),
        img_size=32,
        init_cfg=dict(layer='Conv2d', std=0.1, type='TruncNormal'),
        out_type='raw',
        patch_size=4,
        position='shared',
        type='beitv2_mm.models.BEiTV2Backbone',
        with_mask_token=True,
    ),
    head=dict(embed_dims=16, num_codes=16, type='beitv2_mm.models.MIMHead'),
    neck=dict(
        arch=dict(embed_dims=16, num_heads=2, num_layers=2),
        early_layer=1,
        num_layers=1,
        type='beitv2_mm.models.PatchAggregationNeck',
    ),
    tokenizer=dict(
        decoder=dict(arch=dict(embed_dims=16, num_heads=2, num_layers=1)),
        encoder=dict(
            arch=dict(embed_dims=16, num_heads=2, num_layers=1), img_size=32, patch_size=4
        ),
        init_cfg=None,
        quantizer=dict(dim=16, num_codes=16),
        target_dims=8,
        type='beitv2_mm.models.VQKDTokenizer',
    ),
    type='beitv2_mm.models.BEiTV2Pretrainer',
)
model_wrapper_cfg = dict(
    broadcast_buffers=False,
    find_unused_parameters=False,
    gradient_as_bucket_view=True,
    type='MMDistributedDataParallel',
)
optim_wrapper = dict(
    clip_grad=dict(max_norm=3.0),
    optimizer=dict(
        betas=(
            0.9,
            0.98,
        ),
        lr=0.003,
        type='torch.optim.AdamW',
        weight_decay=0.05,
    ),
    paramwise_cfg=dict(
        custom_keys=dict(
            cls_token=dict(decay_mult=0.0), relative_position_bias_table=dict(lr_mult=10.0)
        ),
        flat_decay_mult=0.0,
        norm_decay_mult=0.0,
    ),
    type='mmengine.optim.OptimWrapper',
)
param_scheduler = [
    dict(convert_to_iter_based=True, end=1, start_factor=0.01, type='mmengine.optim.LinearLR'),
    dict(
        begin=1,
        convert_to_iter_based=True,
        end=2,
        eta_min_ratio=0.01,
        type='mmengine.optim.CosineAnnealingLR',
    ),
]
randomness = dict(deterministic=False, seed=0)
resume = False
test_cfg = dict()
test_dataloader = dict(
    batch_size=250,
    collate_fn=dict(type='mmengine.dataset.default_collate'),
    dataset=dict(
        data_root='tests/data/cifar10',
        pipeline=[
            dict(type='beitv2_mm.datasets.LoadImageFromFile'),
            dict(
                min_aspect=0.3,
                min_block=4,
                num_masked=26,
                patch_size=4,
                type='beitv2_mm.datasets.BlockwiseMask',
            ),
            dict(type='mmpretrain.datasets.PackInputs'),
        ],
        test_mode=True,
        type='beitv2_mm.datasets.ImageFolder',
        with_label=True,
    ),
    num_workers=0,
    persistent_workers=False,
    sampler=dict(shuffle=False, type='mmengine.dataset.DefaultSampler'),
)
test_evaluator = dict(type='beitv2_mm.engine.MIMMetric')
train_cfg = dict(max_epochs=2, type='beitv2_mm.engine.ResumableEpochBasedTrainLoop', val_interval=2)
train_dataloader = dict(
    batch_size=5,
    collate_fn=dict(type='mmengine.dataset.default_collate'),
    dataset=dict(
        data_root='tests/data/cifar10',
        pipeline=[
            dict(type='beitv2_mm.datasets.LoadImageFromFile'),
            dict(prob=0.5, type='mmcv.transforms.RandomFlip'),
            dict(
                backend='pillow',
                crop_ratio_range=(
                    0.5,
                    1.0,
                ),
                interpolation='bicubic',
                scale=32,
                type='mmpretrain.datasets.RandomResizedCrop',
            ),
            dict(
                min_aspect=0.3,
                min_block=4,
                num_masked=26,
                patch_size=4,
                type='beitv2_mm.datasets.BlockwiseMask',
            ),
            dict(type='mmpretrain.datasets.PackInputs'),
        ],
        samples_per_class=1,
        subset='train',
        type='beitv2_mm.datasets.ImageFolder',
        val_per_class=1,
        with_label=True,
    ),
    drop_last=True,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(shuffle=True, type='mmengine.dataset.DefaultSampler'),
    worker_init_fn=dict(type='beitv2_mm.datasets.epoch_worker_init'),
)
train_pipeline = [
    dict(type='beitv2_mm.datasets.LoadImageFromFile'),
    dict(
        backend='pillow',
        crop_ratio_range=(
            0.5,
            1.0,
        ),
        interpolation='bicubic',
        scale=32,
        type='mmpretrain.datasets.RandomResizedCrop',
    ),
    dict(prob=0.5, type='mmcv.transforms.RandomFlip'),
    dict(type='mmpretrain.datasets.PackInputs'),
]
val_cfg = dict()
val_dataloader = dict(
    batch_size=250,
    collate_fn=dict(type='mmengine.dataset.default_collate'),
    dataset=dict(
        data_root='tests/data/cifar10',
        pipeline=[
            dict(type='beitv2_mm.datasets.LoadImageFromFile'),
            dict(
                min_aspect=0.3,
                min_block=4,
                num_masked=26,
                patch_size=4,
                type='beitv2_mm.datasets.BlockwiseMask',
            ),
            dict(type='mmpretrain.datasets.PackInputs'),
        ],
        subset='val',
        test_mode=True,
        type='beitv2_mm.datasets.ImageFolder',
        val_per_class=1,
        with_label=True,
    ),
    num_workers=0,
    persistent_workers=False,
    sampler=dict(shuffle=False, type='mmengine.dataset.DefaultSampler'),
)
val_evaluator = dict(type='beitv2_mm.engine.MIMMetric')
val_per_class = 100
val_pipeline = [
    dict(type='beitv2_mm.datasets.LoadImageFromFile'),
    dict(type='mmpretrain.datasets.PackInputs'),
]
visualizer = dict(
    type='mmengine.visualization.Visualizer',
    vis_backends=[
        dict(type='mmengine.visualization.LocalVisBackend'),
    ],
)
