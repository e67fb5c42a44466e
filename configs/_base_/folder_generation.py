"""What a pixel decoder and a generator of the codes of your own images share: the tokenizer of
vqkd_small_clip_1xb64_100e_folder, and a folder of images, of which some are held out."""

small_tokenizer = dict(
    encoder=dict(arch='small'),
    decoder=dict(arch=dict(embed_dims=384, num_layers=3, num_heads=6)),
    quantizer=dict(num_codes=2048),
    init_cfg=dict(checkpoint='work_dirs/vqkd_small_clip_1xb64_100e_folder/epoch_100.pth'),
)
small_pixel_decoder = dict(backbone=dict(arch=dict(embed_dims=384, num_layers=6, num_heads=6)))
folder = dict(data_root='data/images', with_label=False, val_images=2000)
