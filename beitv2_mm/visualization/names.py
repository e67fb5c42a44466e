"""Names and units, for people, of the scalars that runs log."""

NAMES = {
    'loss': 'loss',
    'loss_commitment': 'commitment loss',
    'loss_cosine': 'cosine loss',
    'loss_main': 'loss on masked patches, main branch',
    'loss_aggregation': 'loss on masked patches, aggregation branch',
    'cosine': 'cosine to the teacher',
    'cosine_constant': 'cosine of the best constant output',
    'codebook_usage': 'codes used at least once',
    'codebook_usage_ema': 'codes in use, running mean',
    'codebook_perplexity_ema': 'perplexity of the codes, running mean',
    'perplexity': 'perplexity of the codes',
    'unused_codes': 'codes never used',
    'accuracy_main': 'accuracy on masked patches, main branch',
    'accuracy_aggregation': 'accuracy on masked patches, aggregation branch',
    'accuracy_constant': 'accuracy of always predicting the commonest code',
    'accuracy/top1': 'top-1 accuracy',
    'accuracy/top5': 'top-5 accuracy',
    'knn/top1': 'top-1 accuracy of k-NN on the features',
    'knn/top5': 'top-5 accuracy of k-NN on the features',
    'aAcc': 'pixel accuracy',
    'mIoU': 'mean IoU',
    'mAcc': 'mean class accuracy',
    'coco/bbox_mAP': 'AP of boxes',
    'coco/bbox_mAP_50': 'AP of boxes, overlap of a half',
    'coco/bbox_mAP_75': 'AP of boxes, overlap of three quarters',
    'coco/bbox_mAP_s': 'AP of boxes, small objects',
    'coco/bbox_mAP_m': 'AP of boxes, medium objects',
    'coco/bbox_mAP_l': 'AP of boxes, large objects',
    'coco/segm_mAP': 'AP of masks',
    'coco/segm_mAP_50': 'AP of masks, overlap of a half',
    'coco/segm_mAP_75': 'AP of masks, overlap of three quarters',
    'coco/segm_mAP_s': 'AP of masks, small objects',
    'coco/segm_mAP_m': 'AP of masks, medium objects',
    'coco/segm_mAP_l': 'AP of masks, large objects',
    'loss_rpn_cls': 'loss of the regions: object or not',
    'loss_rpn_bbox': 'loss of the regions: place',
    'loss_cls': 'loss of the boxes: class',
    'loss_bbox': 'loss of the boxes: place',
    'loss_mask': 'loss of the masks',
    'decode.loss_ce': 'cross-entropy, decoder',
    'aux.loss_ce': 'cross-entropy, auxiliary head',
    'decode.acc_seg': 'pixel accuracy, decoder',
    'aux.acc_seg': 'pixel accuracy, auxiliary head',
    'lr': 'learning rate',
    'base_lr': 'learning rate, before layer decay',
    'skipped_steps': 'steps left out because of NaN or Inf',
    'grad_norm': 'norm of the gradient',
}
PERCENT = ('accuracy', 'knn/top', 'codebook_usage', 'aAcc', 'mIoU', 'mAcc', 'decode.acc', 'aux.acc')


def name_of(tag: str) -> str:
    """The name of a logged scalar; for unknown ones, the tag without underscores."""
    tag = tag.removeprefix('val/')
    return NAMES.get(tag) or tag.replace('_', ' ').replace('.', ', ').replace('/', ' ')


def is_percent(tag: str) -> bool:
    """Whether a logged scalar is a percentage."""
    return tag.removeprefix('val/').startswith(PERCENT)


def value_of(tag: str, value: float) -> str:
    """A value with its unit: 12.345 of 'aAcc' -> '12.3 %'."""
    return f'{value:.1f} %' if is_percent(tag) else f'{value:.4g}'
