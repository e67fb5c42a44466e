"""What every run shares: hooks, logs, checkpoints, seed."""

from mmengine.hooks import DistSamplerSeedHook, IterTimerHook, LoggerHook, ParamSchedulerHook
from mmengine.visualization import LocalVisBackend, Visualizer

from beitv2_mm.engine import (
    AdaptCheckpointHook,
    AtomicCheckpointHook,
    CompileHook,
    DivergenceGuardHook,
    EpochSeedHook,
    ProgressHook,
    RunPageHook,
    UnreadableImagesHook,
)

# Tools of other projects need the fixes of beitv2_mm.compat before they import mmpretrain's models.
# mmengine delays the import statements above, this call runs at once; a dumped config does the same
# by its custom_imports.
__import__('beitv2_mm')
custom_imports = dict(imports=['beitv2_mm'], allow_failed_imports=False)

# Pure-Python configs name classes: no scope has to be searched.
default_scope = None

default_hooks = dict(
    timer=dict(type=IterTimerHook),
    logger=dict(type=LoggerHook, interval=100),
    param_scheduler=dict(type=ParamSchedulerHook),
    checkpoint=dict(type=AtomicCheckpointHook, interval=1, max_keep_ckpts=3, minutes=30),
    sampler_seed=dict(type=DistSamplerSeedHook),
    compile=dict(type=CompileHook, enabled=False),  # torch.compile
)
custom_hooks = [
    dict(type=EpochSeedHook),
    dict(type=ProgressHook),  # a line every ten seconds at least
    dict(type=DivergenceGuardHook),
    dict(type=UnreadableImagesHook),
    dict(type=AdaptCheckpointHook),  # load_from takes any layout, under any project's tools
    dict(type=RunPageHook),  # curves and pictures in work_dir/run.html
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),  # gloo where there is no GPU, see beitv2_mm/compat/mmengine_.py
)

# all parameters get a gradient in every step, so DDP looks for no others; see docs/distributed.md
model_wrapper_cfg = dict(
    type='MMDistributedDataParallel',
    broadcast_buffers=False,
    find_unused_parameters=False,
    gradient_as_bucket_view=True,
)

visualizer = dict(type=Visualizer, vis_backends=[dict(type=LocalVisBackend)])

log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
