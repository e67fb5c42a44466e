"""What every run shares: hooks, logs, checkpoints, seed."""

from mmengine.hooks import (
    CheckpointHook,
    DistSamplerSeedHook,
    IterTimerHook,
    LoggerHook,
    ParamSchedulerHook,
)
from mmengine.visualization import LocalVisBackend, Visualizer

from beitv2_mm.engine import (
    AdaptCheckpointHook,
    EpochSeedHook,
    RunPageHook,
    UnreadableImagesHook,
)

# Pure-Python configs name classes: no scope has to be searched.
default_scope = None

default_hooks = dict(
    timer=dict(type=IterTimerHook),
    logger=dict(type=LoggerHook, interval=100),
    param_scheduler=dict(type=ParamSchedulerHook),
    checkpoint=dict(type=CheckpointHook, interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type=DistSamplerSeedHook),
)
custom_hooks = [
    dict(type=EpochSeedHook),
    dict(type=UnreadableImagesHook),
    dict(type=AdaptCheckpointHook),  # load_from takes any layout, under any project's tools
    dict(type=RunPageHook),  # curves and pictures in work_dir/run.html
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),  # gloo where there is no GPU, see beitv2_mm/compat.py
)

visualizer = dict(type=Visualizer, vis_backends=[dict(type=LocalVisBackend)])

log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
