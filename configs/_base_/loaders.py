"""What the loaders of all recipes share; each recipe says its data set and batch size."""

from mmengine.dataset import DefaultSampler, default_collate

train_dataloader = dict(
    num_workers=8,
    persistent_workers=True,  # every sample is seeded by itself, see ResumableLoader
    pin_memory=True,
    drop_last=True,
    sampler=dict(type=DefaultSampler, shuffle=True),
    collate_fn=dict(type=default_collate),
)
val_dataloader = dict(
    num_workers=8,
    persistent_workers=False,
    pin_memory=True,
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=default_collate),
)
val_cfg = dict()
test_cfg = dict()
