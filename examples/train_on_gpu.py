"""Trains by the recipes `general` and `general-scst` on one GPU, ten times as fast as `showtell train` does there.

    python examples/train_on_gpu.py --data COCO --data FLICKR8K --output RUN --set encoder.weights=LITE2.pth \
        --set 'text.files=["coco.jsonl.gz", "flickr30k.jsonl.gz"]'

It computes what `showtell train` computes, but that the encoder is frozen in the first two epochs. Photos lie in the GPU's
memory, views are made there, and one step (encoder, decoder, gradients, AdamW, averaged weights) is one CUDA graph. For that,
captions are padded to one length. Views and dropout are other draws than those of `showtell train`. Writes the checkpoints
RUN/cross-entropy and RUN/scst. It runs without a GPU too, slowly: try it with --photos 16.

Shapes: B photos of a batch, K captions of each, T steps, G grid cells, D feature channels, V words, S pixels a side.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from showtell.data import joined, read
from showtell.image import Preprocessing, read_photo
from showtell.nn.attention_lstm import AttentionLSTM, lstm_cell
from showtell.nn.model import CaptionModel
from showtell.train.build import build_model, dev_set, parameter_groups
from showtell.train.inputs.batches import tokenized, weighted
from showtell.train.inputs.borrowing import borrowed_captions
from showtell.train.inputs.inputs import Reading
from showtell.train.inputs.views import STRETCH, Augmentation
from showtell.train.objectives.self_critical import Reward, mean_of_others, sample
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.train.run.display import Silent
from showtell.train.schedule import learning_rate
from showtell.train.validation import validate
from showtell.vocabulary import PAD

LOW = torch.bfloat16
GREY = (0.299, 0.587, 0.114)


class Photos:
    """All photos on the device, uint8 (N, 3, S, S), known by name."""

    views = 1

    def __init__(self, names: list[str], pixels: Tensor, sided: frozenset[str], seed: int) -> None:
        self.pixels = pixels
        self.rows = {name: row for row, name in enumerate(names)}
        # Not torch's own generator, whose state a CUDA graph holds.
        self.draws = torch.Generator(pixels.device).manual_seed(seed)
        self.may_flip = torch.tensor([name not in sided for name in names], device=pixels.device)

    def read(self, names: list[str], views: Any = None) -> Any:
        """See train.inputs.inputs.Inputs: the photos as they are."""
        rows = [self.rows[name] for name in names]
        return Reading(self.pixels[rows].permute(0, 2, 3, 1).contiguous().cpu().numpy(), 0)

    def augmented(self, rows: Tensor, recipe: Recipe, preprocessing: Preprocessing) -> Tensor:
        """A new view of each photo, normalised: float32 (B, 3, S, S). The same kinds of change as train.inputs.views makes."""
        options, device, B = recipe.views, self.pixels.device, len(rows)
        area, stretch, across, down, mirrored, *colours = torch.rand(8, B, device=device, generator=self.draws)
        share = options.crop_min + (options.crop_max - options.crop_min) * area
        ratio = torch.where(share < 1, STRETCH ** (2 * stretch - 1), 1.0)
        wide, high = (share * ratio).sqrt().clamp(max=1), (share / ratio).sqrt().clamp(max=1)
        x, y, none = (2 * across - 1) * (1 - wide), (2 * down - 1) * (1 - high), torch.zeros(B, device=device)
        side = torch.where((mirrored < options.flip) & self.may_flip[rows], -1.0, 1.0)
        corners = torch.stack([torch.stack([wide * side, none, x], 1), torch.stack([none, high, y], 1)], 1)
        photos = self.pixels[rows].float()
        where = F.affine_grid(corners, list(photos.shape), align_corners=False)
        photos = F.grid_sample(photos, where, mode="bilinear", padding_mode="border", align_corners=False)
        grey = torch.tensor(GREY, device=device).view(1, 3, 1, 1)
        brightness, contrast, saturation = ((1 + options.colour * (2 * colour - 1)).view(B, 1, 1, 1) for colour in colours)
        photos = (photos * brightness).clamp(0, 255)
        middle = (photos * grey).sum(1, keepdim=True).mean((1, 2, 3), keepdim=True)
        photos = (middle + (photos - middle) * contrast).clamp(0, 255)
        without = (photos * grey).sum(1, keepdim=True)
        photos = (without + (photos - without) * saturation).clamp(0, 255)
        mean, std = (torch.tensor(each, device=device).view(1, 3, 1, 1) for each in (preprocessing.mean, preprocessing.std))
        if preprocessing.channel_order == "bgr":
            photos = photos.flip(1)
        return ((photos * preprocessing.scale - mean) / std).to(memory_format=torch.channels_last)


def teacher_forced(decoder: AttentionLSTM, features: Tensor, tokens: Tensor, dropping: bool) -> Tensor:
    """What AttentionLSTM.forward computes, for captions padded to one length.

    features (B, G, D); tokens int64 (B, K, T). Returns scores float32 (B, K, T, V).
    """
    config, weights = decoder.config, {name: value.to(features.dtype) for name, value in decoder.named_parameters()}

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def dropout(x: Tensor, share: float) -> Tensor:
        return F.dropout(x, share, dropping)

    K, T = tokens.shape[1:]
    features = features * dropout(torch.ones_like(features[:, :1]), config.feature_dropout)
    keys = linear("keys", features)
    hidden, cell = torch.tanh(linear("initial", keys.mean(1))).unsqueeze(1).expand(-1, K, -1).chunk(2, dim=-1)
    cell = cell.float()
    words = linear("word_gates", dropout(F.embedding(tokens, weights["embedding.weight"]), config.word_dropout))
    kept = dropout(torch.ones_like(hidden), config.state_dropout)
    outputs = []
    for t in range(T):
        if t:
            hidden = hidden * kept
        joint = torch.tanh(keys.unsqueeze(1) + linear("attention.query", hidden).unsqueeze(2))
        attention = torch.softmax(linear("attention.score", joint).squeeze(-1).float(), -1).to(features.dtype)
        gated = torch.sigmoid(linear("gate", hidden)) * (attention @ features)
        gates = words[:, :, t] + linear("state_gates", torch.cat([hidden, gated], -1))
        hidden, cell = lstm_cell(gates.float(), cell)
        hidden = hidden.to(features.dtype)
        outputs.append(hidden)
    return F.linear(
        dropout(torch.stack(outputs, 2), config.dropout), weights["embedding.weight"], weights["vocabulary_bias"]
    ).float()


class Optimizer:
    """AdamW over all that is trained, clipped, with averaged weights; `step_of` makes a loss a step."""

    def __init__(self, model: CaptionModel, recipe: Recipe, device: torch.device) -> None:
        self.device, self.recipe = device, recipe
        groups = parameter_groups(model, recipe)
        for group in groups:
            group["lr"] = torch.zeros((), device=device)
        self.adam = torch.optim.AdamW(groups, fused=True, capturable=device.type == "cuda")
        self.decoder = {id(p) for p in model.decoder.parameters()}
        self.parameters = [p for group in groups for p in group["params"]]
        self.average = [p.detach().clone() for p in self.parameters]
        self.loss = torch.zeros((), device=device)

    def rate(self, share: float, *, encoder: bool) -> None:
        """Sets every learning rate to that share of its peak, those of the encoder to 0 unless it is trained."""
        for group in self.adam.param_groups:
            mine = encoder or id(group["params"][0]) in self.decoder
            group["lr"].fill_(share * group["peak"] if mine else 0.0)

    def step_of(self, loss_of: Callable[[], Tensor]) -> Callable[[], None]:
        """What computes the loss and follows its gradients: on a GPU a graph, which reads its inputs where they lay."""

        def step() -> None:
            self.adam.zero_grad(set_to_none=True)
            loss = loss_of()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.training.gradient_clip, foreach=True)
            self.adam.step()
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 1 - self.recipe.training.ema_decay)
                self.loss.copy_(loss.detach())

        if self.device.type != "cuda":
            return step
        before = [p.detach().clone() for p in self.parameters]
        self.rate(0.0, encoder=False)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # a graph wants what it records to have run before
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        self.adam.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            step()
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, before)
            torch._foreach_copy_(self.average, before)
            for state in self.adam.state.values():
                for value in state.values():
                    value.zero_()
        return graph.replay

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the model has the averaged weights."""
        raw = [p.detach().clone() for p in self.parameters]
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.average)
            yield
            torch._foreach_copy_(self.parameters, raw)


@click.command()
@click.option("--data", "folders", type=click.Path(path_type=Path, exists=True), multiple=True, required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--set", "sets", multiple=True, help="A key of both recipes.")
@click.option("--frozen-epochs", default=2, help="First epochs in which the encoder is not trained.")
@click.option("--photos", default=0, help="Of each split; 0 is all.")
@click.option("--measure-every", default=10, help="Epochs between looks at the dev photos.")
def main(
    folders: tuple[Path, ...], output: Path, sets: tuple[str, ...], frozen_epochs: int, photos: int, measure_every: int
) -> None:
    """Trains by the recipes `general` and `general-scst`."""
    started = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe, self_critical_recipe = Recipe.load("general", sets), Recipe.load("general-scst", sets)
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    output.mkdir(parents=True, exist_ok=True)

    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - started:6.0f} s  {text}")

    dataset = joined([read(folder) for folder in folders], recipe.vocabulary.styles)
    train, dev = dataset.split("train"), dataset.split("dev")
    if photos:
        train, dev = train[:: len(train) // photos], dev[:: len(dev) // photos]
    captions = tokenized(train, recipe.vocabulary.text)
    texts = dict(zip(recipe.vocabulary.styles or [""], map(Path, recipe.text.files), strict=False))
    everything = borrowed_captions(
        texts, dataset, recipe.vocabulary.text, recipe.text.captions, output / "borrowed.jsonl", Silent()
    )
    borrowed = {name: many for name, many in everything.items() if name in captions}
    sayable = {name: [*many, *(list(words) for words, _ in borrowed.get(name, ()))] for name, many in captions.items()}
    model, source = build_model(recipe, sayable)
    model.networks().to(device)
    model.encoder.to(memory_format=torch.channels_last)
    training = recipe.training
    names = list(captions)
    written = weighted(
        captions,
        model.vocabulary,
        rule=recipe.vocabulary.text,
        max_words=training.max_words,
        consensus=training.consensus,
        borrowed=borrowed,
    )
    N, K, T = written.targets.shape
    say(f"{N} train and {len(dev)} dev photos, {K} captions of {T} steps at most, {len(model.vocabulary)} words")
    every = [*names, *(sample.image for sample in dev)]

    def decoded(name: str) -> Any:
        return read_photo(dataset.photos.read(name), model.preprocessing, name).pixels

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pixels = torch.from_numpy(np.stack(list(pool.map(decoded, every))))
    sided = Augmentation.of({s.image: s.captions for s in train}, seed=0, flip=0, crop_min=1, crop_max=1, colour=0).sided
    store = Photos(every, pixels.permute(0, 3, 1, 2).contiguous().to(device), sided, recipe.seed)

    tokens, targets = (torch.from_numpy(part).to(device) for part in (written.inputs, written.targets))
    there = torch.arange(T, device=device) < torch.from_numpy(written.lengths).to(device).unsqueeze(-1)
    weights = torch.from_numpy(written.weights).to(device).unsqueeze(-1) * there
    B, S = recipe.training.photos_per_batch, model.preprocessing.size
    view = torch.zeros(B, 3, S, S, device=device).to(memory_format=torch.channels_last)

    def features() -> Tensor:
        with torch.autocast(device.type, LOW):
            return model.encoder(view).to(LOW)

    def run(recipe: Recipe, name: str, frozen: int, fill: Callable[[Tensor], None], loss_of: Callable[[], Tensor]) -> None:
        """Trains by one recipe: `fill` puts the photos of these rows where `loss_of` reads them."""
        epochs, steps = recipe.training.epochs, N // B
        optimizer = Optimizer(model, recipe, device)
        fill(torch.arange(B, device=device))
        step = optimizer.step_of(loss_of)
        for epoch in range(1, epochs + 1):
            order, losses = torch.from_numpy(rng.permutation(N)).to(device), torch.zeros((), device=device)
            for number in range(steps):
                share = learning_rate((epoch - 1) * steps + number, epochs * steps, 1.0, recipe.training.warmup)
                optimizer.rate(share, encoder=epoch > frozen)
                fill(order[number * B : (number + 1) * B])
                step()
                losses += optimizer.loss
            say(f"epoch {epoch}: loss {losses.item() / steps:.3f}")
            if epoch % measure_every and epoch != epochs:
                continue
            with optimizer.averaged():
                found = validate(model, dev_set(recipe, dev, store), Silent(), batch_size=100)
                if epoch == epochs:
                    about = {"data": dataset.name, "encoder_weights": source, "recipe": recipe.model_dump()}
                    checkpoint.write(output / name, model, {"epoch": epoch, "scores": found.scores, **about})
            model.decoder.train()
            shown = [f"{style} BLEU-4 {s['BLEU-4']:.1f} CIDEr {s['CIDEr']:.1f}" for style, s in found.by_style.items()]
            say(f"dev loss {found.loss:.3f}  {'  '.join(shown)}")
        with torch.no_grad():
            torch._foreach_copy_(optimizer.parameters, optimizer.average)

    model.encoder.eval()
    model.decoder.train()
    before, after, weight = tokens[:B].clone(), targets[:B].clone(), weights[:B].clone()

    def written_captions(rows: Tensor) -> None:
        view.copy_(store.augmented(rows, recipe, model.preprocessing))
        for buffer, whole in ((before, tokens), (after, targets), (weight, weights)):
            buffer.copy_(whole[rows])

    def cross_entropy() -> Tensor:
        scores = teacher_forced(model.decoder, features(), before, True).flatten(0, 2)
        losses = F.cross_entropy(scores, after.flatten(), label_smoothing=recipe.training.label_smoothing, reduction="none")
        return (losses * weight.flatten()).sum() / (weight > 0).sum()

    run(recipe, "cross-entropy", frozen_epochs, written_captions, cross_entropy)

    options = self_critical_recipe.scst
    reward = Reward(captions, model.vocabulary)
    never = model.vocabulary.search_tokens().never
    forbidden = torch.zeros(len(model.vocabulary), dtype=torch.bool)
    forbidden[list(never)] = True
    forbidden = forbidden.to(device)
    shape = (B, options.samples, options.max_length + 1)
    before, after, weight = (
        torch.zeros(shape, dtype=kind, device=device) for kind in (torch.int64, torch.int64, torch.float32)
    )

    def sampled_captions(rows: Tensor) -> None:
        view.copy_(store.augmented(rows, recipe, model.preprocessing))
        model.decoder.eval()
        with torch.no_grad():
            grids = features().float()
            with torch.autocast(device.type, LOW):
                found = sample(
                    model.decoder, grids, tokens[rows][:, 0, :1], never, options.samples, max_length=options.max_length
                )
        model.decoder.train()
        rewards = reward([names[row] for row in rows.tolist()], found.tokens)
        for buffer, whole in ((before, found.inputs), (after, found.tokens)):
            buffer.zero_()[..., : whole.shape[-1]] = whole
        weight.copy_((rewards - mean_of_others(rewards)).unsqueeze(-1) * (after != PAD))

    def self_critical() -> Tensor:
        # As self_critical.policy, which a graph cannot hold: it copies from the host.
        scores = teacher_forced(model.decoder, features(), before, False).masked_fill(forbidden, -1e9)
        log_probs = F.log_softmax(scores, dim=-1)
        chosen = log_probs.gather(-1, after.unsqueeze(-1)).squeeze(-1)
        return -(chosen * weight).sum() / (after != PAD).sum()

    run(self_critical_recipe, "scst", 0, sampled_captions, self_critical)


if __name__ == "__main__":
    main()
