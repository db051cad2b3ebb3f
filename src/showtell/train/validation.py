"""Measuring a model while it is trained: dev photos captioned by the same search as the product's."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from showtell import metrics
from showtell.decoding import Array, search
from showtell.nn.captioner import CaptionModel, TorchStepModel
from showtell.nn.resnet import ResNet
from showtell.text import detokenize
from showtell.train.display import Reporter
from showtell.train.features import FeatureCache
from showtell.train.recipe import Recipe
from showtell.types import DecodeOptions, Sample
from showtell.vocab import SEARCH_TOKENS


def validate(
    model: CaptionModel,
    cache: FeatureCache,
    samples: Sequence[Sample],
    recipe: Recipe,
    report: Reporter,
    batch_size: int = 50,
) -> tuple[dict[str, float], dict[str, str]]:
    """Scores x100 of the model's captions of `samples`, and the captions of the first three."""
    options = DecodeOptions(**recipe.validation.model_dump())
    steps = TorchStepModel(model.decoder)
    rows = cache.rows([sample.image for sample in samples])
    candidates: dict[str, str] = {}
    for start in range(0, len(samples), batch_size):
        with torch.inference_mode():
            features = grid_features(model.encoder, cache.array[rows[start : start + batch_size]])
        found = search(steps, features.numpy(), SEARCH_TOKENS, options)
        for sample, hypotheses in zip(samples[start : start + batch_size], found, strict=True):
            candidates[sample.image] = detokenize(model.vocabulary.decode(hypotheses[0].tokens))
        report.progress("dev", len(candidates), len(samples))
    references = {sample.image: sample.captions for sample in samples}
    scores = {name: round(value, 3) for name, value in metrics.score(candidates, references).corpus.items()}
    return scores, {sample.image: candidates[sample.image] for sample in samples[:3]}


def grid_features(encoder: ResNet, cached: Array) -> Tensor:
    """Grid features float32 (B, 49, 2048) from rows of the cache, through the last stage where that is what is trained."""
    features = torch.from_numpy(np.asarray(cached, np.float32))
    return features if features.ndim == 3 else encoder.last_stage(features.permute(0, 3, 1, 2))
