"""Draws the figures of the course from the embedded model, the example photos and docs/experiments.md.

    python docs/course/figures.py            # all of them, into docs/course/figures; about a minute
    python docs/course/figures.py beam       # one

Needs `pip install '.[train]'`. Figures with captions may differ a little between processors, as captions do.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image

import showtell
from showtell.arrays import Array
from showtell.decoding import Step, StepModel, search
from showtell.image import read_rgb, to_pixels
from showtell.metrics import Cider, NGramTable
from showtell.text import tokenize
from showtell.train.run import checkpoint
from showtell.types import DecodeOptions
from showtell.vocabulary import Vocabulary

mpl.use("agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[2]
FIGURES = Path(__file__).parent / "figures"
PHOTOS = ROOT / "examples" / "photos"
PHOTO = PHOTOS / "giraffes.jpg"
MODEL = "lite2-lstm-general"
BLUE, ORANGE, GREEN, GREY = "#1f5fa8", "#c8571b", "#2c7a4b", "#777777"

plt.rcParams.update(
    {
        "svg.hashsalt": "showtell",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e4e4e4",
        "figure.constrained_layout.use": True,
    }
)


def save(figure: Any, name: str) -> None:
    """Writes a chart as SVG, a picture as WebP."""
    path = FIGURES / name
    if path.suffix == ".svg":
        figure.savefig(path, metadata={"Date": None})
    elif isinstance(figure, Image.Image):
        figure.save(path, quality=80, method=6)
    else:
        figure.savefig(path, dpi=110, pil_kwargs={"quality": 80, "method": 6})
    plt.close("all")


def pixels_of(path: Path, preprocessing: Any) -> Array:
    """A photo as the model gets it: uint8 (size, size, 3)."""
    return to_pixels(read_rgb(path, path.name, showtell.ImageSettings()), preprocessing)


def squash() -> None:
    """The photo, the square of 256 pixels, and its three channels."""
    captioner = showtell.load()
    pixels = pixels_of(PHOTO, captioner.bundle.preprocessing)
    _, axes = plt.subplots(1, 5, figsize=(10, 2.3), width_ratios=[1.5, 1, 1, 1, 1])
    axes[0].imshow(Image.open(PHOTO))
    axes[0].set_title("photo, 640 x 427", fontsize=9)
    axes[1].imshow(pixels)
    axes[1].set_title("input, 256 x 256", fontsize=9)
    for number, (name, colours) in enumerate((("red", "Reds_r"), ("green", "Greens_r"), ("blue", "Blues_r"))):
        axes[2 + number].imshow(pixels[..., number], cmap=colours, vmin=0, vmax=255)
        axes[2 + number].set_title(f"{name}, 0 to 255", fontsize=9)
    for each in axes:
        each.axis("off")
    save(plt.gcf(), "squash.webp")


def feature_maps() -> None:
    """Six channels after the stem and after each stage: those that differ most over the photo."""
    model = checkpoint.find(Path(MODEL)).load_model()
    pixels = model.preprocessing.normalize(pixels_of(PHOTO, model.preprocessing))[None]
    _, axes = plt.subplots(5, 6, figsize=(9, 7.8))
    for stage in range(5):
        with torch.no_grad():
            maps = model.encoder.first_stages(torch.from_numpy(pixels), stage)[0].numpy()
        varied = np.argsort(-maps.std((1, 2)))[:6]
        for axis, channel in zip(axes[stage], varied, strict=True):
            axis.imshow(maps[channel], cmap="magma", interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.grid(visible=False)
        what = "stem" if stage == 0 else f"stage {stage}"
        axes[stage][0].set_ylabel(f"{what}\n{maps.shape[0]} channels\nof {maps.shape[1]} x {maps.shape[2]}", fontsize=9)
    save(plt.gcf(), "feature-maps.webp")


def attention() -> None:
    """The photo once for each word, dark where the attention weight is small."""
    captioner = showtell.load()
    sheet = showtell.explain(captioner, PHOTO)
    sheet.thumbnail((1200, 1200))
    save(sheet, "attention.webp")


@dataclass
class Recorder:
    """A step model that remembers each step of a search of one photo: which words went on, and what followed them."""

    model: StepModel
    texts: list[list[tuple[int, ...]]] = field(default_factory=list)  # by step: the hypotheses that were extended
    log_probs: list[Array] = field(default_factory=list)  # by step: (K, V)
    _now: list[tuple[int, ...]] = field(default_factory=lambda: [()])

    def start(self, features: Array) -> Any:
        return self.model.start(features)

    def step(self, tokens: Array, state: Any) -> Step:
        self._now = [(*text, int(token)) for text, token in zip(self._now, tokens[0], strict=True)]
        step = self.model.step(tokens, state)
        self.texts.append([text[1:] for text in self._now])  # without the begin token
        self.log_probs.append(step.log_probs[0])
        return step

    def reorder(self, state: Any, photos: Array, hypotheses: Array) -> Any:
        self._now = [self._now[k] for k in hypotheses[0]]
        return self.model.reorder(state, photos, hypotheses)


def recorded_search(beam_size: int) -> tuple[Recorder, Vocabulary, tuple[int, ...]]:
    """A beam search of the photo: its record, the vocabulary and the best caption."""
    captioner = showtell.load()
    features = captioner.features(pixels_of(PHOTO, captioner.bundle.preprocessing)[None])
    recorder, vocabulary = Recorder(captioner.decoder), captioner.bundle.vocabulary
    options = DecodeOptions(beam_size=beam_size, length_penalty=0.7)
    [[best, *_]] = search(recorder, features, vocabulary.search_tokens(), options)
    return recorder, vocabulary, best.tokens


def beam() -> None:
    """A beam search of three, as a tree: what each word's probability was, what went on, and what was dropped."""
    recorder, vocabulary, best = recorded_search(3)
    depth = 6
    kept = [set(texts) for texts in recorder.texts[1 : depth + 1]]
    nodes: dict[tuple[int, ...], float] = {}
    for texts, log_probs, after in zip(recorder.texts[:depth], recorder.log_probs, kept, strict=False):
        for text, row in zip(texts, log_probs, strict=True):
            favourites = {(*text, int(token)) for token in np.argsort(-row)[:2]}
            for child in favourites | {one for one in after if one[:-1] == text}:
                nodes[child] = float(np.exp(row[child[-1]]))
    alive = set().union(*kept)
    parents = [node for node in nodes if not node[:-1] or node[:-1] in alive]
    # Leaves get rows; a node lies in the middle of its children.
    heights: dict[tuple[int, ...], float] = {}
    row = 0.0

    def place(node: tuple[int, ...]) -> float:
        nonlocal row
        children = sorted((one for one in parents if one[:-1] == node), key=lambda one: -nodes[one])
        if children:
            heights[node] = float(np.mean([place(child) for child in children]))
        else:
            heights[node] = row
            row += 1
        return heights[node]

    place(())
    _, axis = plt.subplots(figsize=(10.5, 0.34 * row + 0.6))
    for node in parents:
        best_so_far = node == best[: len(node)]
        colour = BLUE if best_so_far else "#222222" if node in alive else "#8a8a8a"
        axis.plot(
            [len(node) - 0.55, len(node) - 0.28],
            [heights[node[:-1]], heights[node]],
            color=colour,
            linewidth=1.8 if best_so_far else 0.9,
        )
        word = vocabulary.words[node[-1]]
        word = "(end)" if node[-1] == vocabulary.search_tokens().end else word
        label = f"{word}  {nodes[node]:.2f}"
        axis.text(len(node) - 0.25, heights[node], label, va="center", color=colour, fontsize=9)
    axis.text(0.4, heights[()], "(begin)", va="center", ha="right", fontsize=9)
    axis.set(xlim=(0, depth + 0.75), ylim=(row - 0.4, -0.6))
    axis.axis("off")
    save(plt.gcf(), "beam.svg")


def overfit() -> None:
    """Loss on train and dev photos of a debug run over twelve drawings."""
    with tempfile.TemporaryDirectory() as temporary:
        data, run = Path(temporary) / "shapes", Path(temporary) / "run"
        python = [sys.executable]
        subprocess.run([*python, ROOT / "examples" / "shapes.py", data, "--train", "12"], check=True)
        keys = ["training.epochs=30", "training.learning_rate=1e-2", "training.photos_per_batch=1", "validation.beam_size=1"]
        sets = [part for key in [*keys, f"encoder.cache={temporary}/cache"] for part in ("--set", key)]
        command = [*python, "-m", "showtell", "train", "debug", "--data", data, "--output", run, *sets]
        subprocess.run(command, check=True, capture_output=True)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if "dev_loss" in line]
    _, axis = plt.subplots(figsize=(6.4, 3.2))
    numbers = [line["epoch"] for line in epochs]
    axis.plot(numbers, [line["loss"] for line in epochs], color=BLUE, label="12 train photos")
    losses = [line["dev_loss"] for line in epochs]
    axis.plot(numbers, losses, color=ORANGE, label="24 dev photos")
    lowest = int(np.argmin(losses))
    axis.plot(numbers[lowest], losses[lowest], "o", color=ORANGE)
    axis.annotate("lowest on dev", (numbers[lowest], losses[lowest]), (0, 14), textcoords="offset points", ha="center")
    axis.set(xlabel="epoch", ylabel="loss, nats a word", ylim=(0, 2))
    axis.legend(frameon=False)
    save(plt.gcf(), "overfit.svg")


def tuning() -> None:
    """The table of docs/experiments.md, "On a GPU": losses and CIDEr by epoch."""
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    table = text.split("| epoch | train loss | dev loss |")[1].split("\n\n")[0]
    rows = [[re.sub(r",.*", "", cell).strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    epochs = np.array([int(row[0]) for row in rows])
    places = {"train": 1, "dev": 2, "coco": 4, "flickr": 6}
    columns = {name: [float(row[place]) if row[place] else np.nan for row in rows] for name, place in places.items()}
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    left.plot(epochs, columns["train"], "o-", color=BLUE, label="train loss (smoothed labels, dropout)")
    left.plot(epochs, columns["dev"], "o-", color=ORANGE, label="dev loss")
    left.set(xlabel="epoch", ylabel="nats a word", ylim=(2.5, 3.3))
    right.plot(epochs, columns["coco"], "o-", color=GREEN, label="COCO, 200 dev photos")
    right.plot(epochs, columns["flickr"], "o-", color=GREY, label="Flickr8k, 300 dev photos")
    right.set(xlabel="epoch", ylabel="CIDEr, times 100", ylim=(55, 105))
    for axis in (left, right):
        axis.axvspan(40.5, 46, color="#f3ead9", zorder=0)
        axis.legend(frameon=False, fontsize=8, loc="upper right" if axis is left else "center left")
    right.text(45.9, 57, "self-critical", ha="right", fontsize=8)
    save(plt.gcf(), "tuning.svg")


def quantized(values: Array, bits: int, axis: int | None) -> Array:
    """Values rounded to `bits` with one scale, or one scale for each row where `axis` is 1."""
    top = 2 ** (bits - 1) - 1
    scale = np.abs(values).max(axis, keepdims=True) / top
    return np.round(values / scale) * scale


def quantization() -> None:
    """Rounding to whole steps, and the error of one of the decoder's matrices by number of bits."""
    matrix = checkpoint.find(Path(MODEL)).load_model().decoder.word_gates.weight.detach().numpy()
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    x = np.linspace(-1, 1, 2001)
    left.plot(x, x, color=GREY, linewidth=0.8, label="float32")
    for bits, colour in ((3, ORANGE), (5, BLUE)):
        left.plot(x, quantized(x, bits, None), color=colour, linewidth=1.2, label=f"{bits} bits")
    left.set(xlabel="value", ylabel="value after rounding")
    left.legend(frameon=False)
    bits = list(range(3, 9))
    for axis, label, colour in ((None, "one scale for the matrix", ORANGE), (1, "one scale a row", BLUE)):
        errors = [np.linalg.norm(quantized(matrix, b, axis) - matrix) / np.linalg.norm(matrix) for b in bits]
        right.semilogy(bits, errors, "o-", color=colour, label=label)
    right.set(xlabel="bits", ylabel="error, as a share of the size")
    right.legend(frameon=False)
    save(plt.gcf(), "quantization.svg")


def weights() -> None:
    """CIDEr's weights of the words of one photo's references, among the references of the twelve example photos."""
    rows = [json.loads(line) for line in (ROOT / "examples" / "references.jsonl").read_text(encoding="utf-8").splitlines()]
    table = NGramTable()
    references = [[tokenize(text) for text in row["captions"]] for row in rows]
    counted = table.count(references)
    idf = Cider(counted, table)._idf
    [kitchen] = [refs for row, refs in zip(rows, references, strict=True) if "kitchen" in row["image"]]
    words = sorted({word for tokens in kitchen for word in tokens})
    found = sorted(((float(idf[table._numbers[word]]), word) for word in words), reverse=True)
    _, axis = plt.subplots(figsize=(9, 3))
    axis.bar([word for _, word in found], [weight for weight, _ in found], color=BLUE)
    axis.set_ylabel("weight: log(12 / photos\nthat have the word)")
    axis.tick_params(axis="x", rotation=60)
    save(plt.gcf(), "weights.svg")


def lengths() -> None:
    """The brevity penalty of BLEU and the length penalty of CIDEr-D, for references of ten words."""
    length = np.arange(1, 21)
    _, axis = plt.subplots(figsize=(6.4, 2.8))
    axis.plot(length, np.exp(np.minimum(0, 1 - 10 / length)), "o-", color=BLUE, label="BLEU: brevity penalty")
    axis.plot(length, np.exp(-((length - 10) ** 2) / (2 * 6**2)), "o-", color=ORANGE, label="CIDEr-D: Gaussian, sigma 6")
    axis.set(xlabel="words of the caption, where references have 10", ylabel="factor", ylim=(0, 1.1), xticks=range(2, 21, 2))
    axis.legend(frameon=False)
    save(plt.gcf(), "lengths.svg")


ALL: Sequence[Callable[[], None]] = (
    squash, feature_maps, attention, beam, overfit, tuning, quantization, weights, lengths,
)  # fmt: skip


def main() -> None:
    FIGURES.mkdir(exist_ok=True)
    wanted = set(sys.argv[1:])
    if unknown := wanted - {draw.__name__ for draw in ALL}:
        sys.exit(f"{sorted(unknown)[0]}: no such figure; there are {', '.join(draw.__name__ for draw in ALL)}")
    for draw in ALL:
        if not wanted or draw.__name__ in wanted:
            draw()


if __name__ == "__main__":
    main()
