"""The reports of each kind of job: their figures, baselines and verdicts. Shares and accuracies are
per cent."""

from dataclasses import dataclass

from beitv2_mm.visualization.accuracy import Accuracy, percent
from beitv2_mm.visualization.report import Figure, Report, Row, SegmentationScore
from beitv2_mm.visualization.verdict import (
    SMOKE,
    Finding,
    judge_classifier,
    judge_detector,
    judge_gain,
    judge_pretraining,
    judge_segmentor,
    judge_tokenizer,
)

PHRASES = {  # names of a classifier's results within a sentence
    'fine-tuned': 'fine-tuning',
    'linear, frozen features': 'a linear head on frozen features',
    'from scratch': 'training from scratch',
}


@dataclass(frozen=True, kw_only=True)
class PretrainingReport(Report):
    """Figures of a tokenizer and of the transformer pretrained with it."""

    cosine: float  # of the tokenizer's output to the teacher
    cosine_constant: float | None  # of the best constant output; None in results of old versions
    codebook_usage: float
    mim_accuracy: float  # masked patches whose code is predicted, main head
    mim_accuracy_aggregation: float
    accuracy_constant: float | None  # of always predicting the commonest code
    num_held_out: int  # images on which these were measured

    def verdict(self) -> list[Finding]:
        findings = []
        if self.cosine_constant is not None:
            findings.append(judge_tokenizer(self.cosine, self.cosine_constant))
        if self.accuracy_constant is not None:
            findings.append(judge_pretraining(self.mim_accuracy, self.accuracy_constant))
        return findings

    def headline(self) -> list[Figure]:
        return [
            self._cosine(),
            ('', percent(self.codebook_usage), 'of the codebook in use'),
            (
                '',
                percent(self.mim_accuracy),
                'codes of hidden patches right' + _note('commonest code', self.accuracy_constant),
            ),
        ]

    def _cosine(self) -> Figure:
        constant = self.cosine_constant
        note = '' if constant is None else f'\nbest constant: {constant:.3f}'
        return '', f'{self.cosine:.3f}', f'cosine to the teacher{note}'

    def rows(self) -> list[Row]:
        usage, images = percent(self.codebook_usage), f'{self.num_held_out:,} images held out'
        right = percent(self.mim_accuracy)
        rows = [
            ('Tokenizer: cosine to the teacher', f'{self.cosine:.3f}', images),
            ('Tokenizer: codebook usage', usage, f'codes used at least once; {images}'),
            ('MIM: accuracy on masked patches', right, f'main branch; {images}'),
            ('', percent(self.mim_accuracy_aggregation), f'patch aggregation branch; {images}'),
        ]
        if self.cosine_constant is not None:
            constant = f'{self.cosine_constant:.3f}'
            rows.insert(1, ('', constant, 'baseline: the best output that ignores the image'))
        if self.accuracy_constant is not None:
            commonest = percent(self.accuracy_constant)
            rows.append(('', commonest, 'baseline: always the commonest code'))
        return rows


@dataclass(frozen=True, kw_only=True)
class ComparisonReport(PretrainingReport):
    """Pretraining, and fine-tuning with and without it."""

    ends_in_total = True

    scratch: Accuracy
    pretrained: Accuracy
    num_classes: int
    num_test_images: int  # the same number of each class
    smoke: bool = False  # the run was too short for its figures to mean anything

    @property
    def gain(self) -> float:
        """Points by which pretraining beats training from scratch."""
        return self.pretrained.mean - self.scratch.mean

    def verdict(self) -> list[Finding]:
        if self.smoke:
            return [SMOKE]
        chance = judge_classifier(self.pretrained, self.num_classes, self.num_test_images)
        names = 'pretraining', 'training from scratch'
        gain = judge_gain(self.pretrained, self.scratch, names)
        causes = [finding for finding in (*super().verdict(), chance) if finding.kind != 'good']
        return [gain, *causes]

    def derived(self) -> dict[str, object]:
        return {**super().derived(), 'gain': self.gain}

    def headline(self) -> list[Figure]:
        chance = _note('chance', 100 / self.num_classes)
        spreads = f'{self.pretrained.spread:.1f} and ± {self.scratch.spread:.1f}'
        several = len(self.pretrained.per_seed) > 1
        clear = self.verdict()[0].kind == 'good'
        return [
            ('', percent(self.scratch.mean), f'top-1 from scratch{chance}'),
            ('', percent(self.pretrained.mean), f'top-1 pretrained{chance}'),
            (
                'main' if clear else '',
                f'{self.gain:+.1f}',
                'points gained by pretraining' + (f'\nseeds: ± {spreads}' if several else ''),
            ),
            self._cosine(),
        ]

    def rows(self) -> list[Row]:
        images = f'{self.num_test_images:,} test images'
        chance = f'baseline: guessing one of {self.num_classes} classes'
        return [
            *super().rows(),
            _top1('Top-1 from scratch', self.scratch, images),
            _top1('Top-1 pretrained', self.pretrained, images),
            ('', percent(100 / self.num_classes), chance),
            *(
                ('' if row else 'mIoU on composites', percent(score.miou), score.label)
                for row, score in enumerate(self.segmentation)
            ),
            (
                'Top-1 gain by pretraining',
                f'{self.gain:+.1f} points',
                'over training from scratch',
            ),
        ]


@dataclass(frozen=True, kw_only=True)
class ClassifierReport(Report):
    """Figures of a fine-tuned classifier, or of several ways to one."""

    results: dict[str, Accuracy]  # by way of training, the chosen one first; on images held out
    num_images: int  # held out, the same number of each class
    num_classes: int
    largest_class: float  # share of all images

    def verdict(self) -> list[Finding]:
        ways = [(PHRASES.get(name, name), result) for name, result in self.results.items()]
        (label, first), *others = ways
        chance = judge_classifier(first, self.num_classes, self.num_images)
        return [chance, *(judge_gain(first, other, (label, name)) for name, other in others)]

    def headline(self) -> list[Figure]:
        (label, first), *others = self.results.items()
        chance = _note('chance', 100 / self.num_classes)
        compared = [
            figure
            for name, other in others
            for figure in (
                ('', percent(other.mean), f'top-1, {name}{chance}'),
                ('', f'{first.mean - other.mean:+.1f}', f'points over {name}'),
            )
        ]
        return [
            ('', percent(first.mean), f'top-1 on images held out, {label}{chance}'),
            *compared,
            ('', str(self.num_classes), 'classes'),
        ]

    def rows(self) -> list[Row]:
        chance = percent(100 / self.num_classes)
        return [
            ('Classes', str(self.num_classes), f'the largest has {percent(self.largest_class)}'),
            ('Chance', chance, 'the same number of images of each class is held out'),
            *(
                _top1('' if row else 'Top-1', value, f'{name}, {self.num_images} images held out')
                for row, (name, value) in enumerate(self.results.items())
            ),
        ]


@dataclass(frozen=True, kw_only=True)
class SegmentorReport(Report):
    """Figures of one segmentor, on images held out."""

    miou: float
    macc: float
    aacc: float
    guess: SegmentationScore  # of predicting the commonest class everywhere
    num_images: int
    num_classes: int

    def verdict(self) -> list[Finding]:
        return [judge_segmentor(self.miou, self.guess.miou)]

    def headline(self) -> list[Figure]:
        guess = self.guess
        return [
            (
                '',
                percent(self.miou),
                'mean IoU on images held out' + _note('baseline', guess.miou),
            ),
            ('', percent(self.aacc), 'of pixels right' + _note('baseline', guess.aacc)),
            ('', str(self.num_classes), 'classes'),
        ]

    def rows(self) -> list[Row]:
        guess = self.guess
        pairs = [
            ('Mean IoU', self.miou, guess.miou),
            ('Mean class accuracy', self.macc, guess.macc),
            ('Pixel accuracy', self.aacc, guess.aacc),
        ]
        return [
            row
            for name, value, base in pairs
            for row in (
                (name, percent(value), f'{self.num_images} images held out'),
                ('', percent(base), guess.label),
            )
        ]


@dataclass(frozen=True, kw_only=True)
class DetectorReport(Report):
    """Figures of one detector, on images held out: average precision by COCO's rules."""

    box_ap: float  # mean over overlaps of 0.5 to 0.95
    box_ap50: float  # at an overlap of 0.5
    mask_ap: float | None  # None where objects have no masks
    num_images: int
    num_classes: int

    def verdict(self) -> list[Finding]:
        return [judge_detector(self.box_ap50)]

    def headline(self) -> list[Figure]:
        masks = [] if self.mask_ap is None else [('', f'{self.mask_ap:.1f}', 'AP of masks')]
        return [
            ('', f'{self.box_ap:.1f}', 'AP of boxes on images held out'),
            ('', f'{self.box_ap50:.1f}', 'AP of boxes at an overlap of a half'),
            *masks,
            ('', str(self.num_classes), 'classes'),
        ]

    def rows(self) -> list[Row]:
        images = f'{self.num_images} images held out'
        rows = [
            ('AP of boxes', f'{self.box_ap:.1f}', f'overlaps of 0.5 to 0.95; {images}'),
            ('', f'{self.box_ap50:.1f}', 'an overlap of 0.5'),
        ]
        if self.mask_ap is not None:
            rows.append(('AP of masks', f'{self.mask_ap:.1f}', 'overlaps of 0.5 to 0.95'))
        return rows


def _note(name: str, value: float | None) -> str:
    """The second line below a figure, with its baseline."""
    return '' if value is None else f'\n{name}: {percent(value)}'


def _top1(label: str, result: Accuracy, note: str) -> Row:
    seeds = ', '.join(f'{value:.1f}' for value in result.per_seed)
    if len(result.per_seed) == 1:
        return label, percent(result.mean), f'{note}; one seed'
    return label, f'{result.mean:.1f} ± {result.spread:.1f} %', f'{note}; seeds: {seeds}'
