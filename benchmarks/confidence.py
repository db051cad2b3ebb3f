"""What words, confidence, evidence, labels and in_domain bring: the figures of docs/experiments.md about them, and the diagram.

    python benchmarks/confidence.py COCO FLICKR8K --ood OOD --diagram docs/images/reliability.png [--rates] [--page DIR]

COCO and FLICKR8K are data sets, of which the dev photos are used; OOD is a folder made by `out_of_domain.py`. Confidences of
dev photos are cross-validated: each comes from a fit to other dev photos. `--rates` measures photos a second with and without a
confidence model, in turns. `--page` writes DIR/index.html: 40 pictures of OOD with what is said of them, for looking at.
"""

import argparse
import html
import random
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import showtell
from showtell.arrays import Array, FloatArray
from showtell.data import Dataset, read
from showtell.evaluation.calibrate import Judged, auroc, calibration_error, fit_calibration, grid_features, judge, judge_split
from showtell.progress import silent
from showtell.text import tokenize
from showtell.text.words import DOGS, PEOPLE
from showtell.types import ConfidenceOptions, Sample

ALONE = "decoder alone"
WAYS = {
    ALONE: ConfidenceOptions(),
    "with words": ConfidenceOptions(evidence=False, fallback=False),
    "with evidence": ConfidenceOptions(fallback=False),
    "and fallback": ConfidenceOptions(),
}
ROUNDS, RATED = 5, 400
Batches = list[tuple[list[Sample], Array]]  # photos, and their grid features in half precision


def widened(batches: Batches) -> Iterator[tuple[list[Sample], Array]]:
    """The batches in single precision, one at a time."""
    for batch, features in batches:
        yield batch, features.astype(np.float32)


def ways(captioner: showtell.Captioner, name: str, batches: Batches) -> None:
    """CIDEr and false people and dogs of the dev captions, by what is done besides the decoder's own search."""
    options = captioner.options(style=name if name in captioner.styles else None)
    found: dict[str, dict[str, str]] = {way: {} for way in WAYS}
    sources: dict[str, int] = dict.fromkeys(WAYS, 0)
    references = {sample.image: sample.captions for batch, _ in batches for sample in batch}
    known = captioner.confidence
    for batch, features in widened(batches):
        for way, trust in WAYS.items():
            captioner.confidence = None if way == ALONE else known
            for sample, described in zip(batch, captioner.describe(features, options, trust), strict=True):
                found[way][sample.image] = described.captions[0].text
                sources[way] += described.captions[0].source == "labels"
    tokens = {photo: [tokenize(text) for text in texts] for photo, texts in references.items()}
    for way, captions in found.items():
        cider, _ = judge(captions, references)
        people, dogs = (
            sum(kind.falsely(tokenize(text), tokens[photo]) for photo, text in captions.items()) for kind in (PEOPLE, DOGS)
        )
        changed = sum(text != found["with words"][photo] for photo, text in captions.items())
        print(
            f"{name:9} {way:14} CIDEr {cider.mean():6.2f}  false people {people:3}  false dogs {dogs:3}  "
            f"changed {changed:3}  of labels {sources[way]:3}"
        )


def calibration(name: str, judged: Judged) -> None:
    """How well confidence is calibrated, and how it sorts captions."""
    order = np.argsort(-judged.probability)
    cider, fifth, half = judged.cider[order], len(order) // 5, len(order) // 2
    top, last = cider[:fifth].mean(), cider[-fifth:].mean()
    rng = np.random.default_rng(0)
    noise = np.mean([calibration_error(judged.probability, rng.random(len(order)) < judged.probability) for _ in range(200)])
    print(
        f"{name:9} good {judged.good.mean():.3f}  ECE {calibration_error(judged.probability, judged.good):.3f} "
        f"(a perfect one {noise:.3f})  "
        f"AUROC {auroc(judged.probability[judged.good], judged.probability[~judged.good]):.3f}  "
        f"CIDEr of the surest fifth {top:.1f}, the least sure {last:.1f} ({top / last:.2f} times)  "
        f"surest half +{cider[:half].mean() - cider.mean():.1f}"
    )


def pictures(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    for source in sorted(path for path in folder.iterdir() if path.is_dir()):
        yield source.name, sorted(source.glob("*.png"))


def domain(captioner: showtell.Captioner, batches: Batches, folder: Path) -> None:
    """AUROC of in_domain, dev photos against each source, and what confidence is given there."""
    assert captioner.confidence is not None
    model = captioner.confidence
    usual = np.array([photo.in_domain for _, features in widened(batches) for photo in model.assess(features)])
    all_outside = []
    print(f"in_domain of {len(usual)} dev photos: median {np.median(usual):.2f}, {np.mean(usual < 0.5):.1%} below 0.5")
    for name, paths in pictures(folder):
        records = list(captioner.records(paths))
        outside = np.array([record.in_domain or 0 for record in records])
        all_outside.append(outside)
        sure = np.array([record.confidence or 0 for record in records])
        print(
            f"  {name:12} {len(paths):3} pictures  AUROC {auroc(usual, outside):.3f}  below 0.5 {np.mean(outside < 0.5):4.0%}  "
            f"confidence {sure.mean():.2f}, doubtful {np.mean(sure < showtell.types.DOUBTFUL):4.0%}"
        )
    print(f"  all sources AUROC {auroc(usual, np.concatenate(all_outside)):.3f}")


def label_hits(captioner: showtell.Captioner, name: str, batches: Batches) -> None:
    """How often the likeliest labels are named by a reference."""
    assert captioner.confidence is not None
    labels = captioner.confidence.labels
    first, five, sure, right = [], [], 0, 0
    for batch, features in widened(batches):
        for sample, photo in zip(batch, captioner.confidence.assess(features), strict=True):
            likely = photo.probabilities
            said = {word for text in sample.captions for word in tokenize(text)}
            hits = [bool(labels.words[place] & said) for place in np.argsort(-likely)[:5]]
            first.append(hits[0])
            five.append(np.mean(hits))
            sure += likely.max() >= showtell.types.SURE
            right += hits[0] and likely.max() >= showtell.types.SURE
    print(
        f"{name:9} labels: the first is named by a reference in {np.mean(first):.1%}, of five {np.mean(five):.1%}; "
        f"sure in {sure / len(first):.1%}, of those named {right / max(1, sure):.1%}"
    )


def rates(captioner: showtell.Captioner, dataset: Dataset) -> None:
    """Photos a second with and without a confidence model, in turns, both in a changing order."""
    photos = [dataset.photos.read(sample.image) for sample in dataset.split("dev")[:RATED]]
    known, seconds = captioner.confidence, {True: [], False: []}
    for number in range(ROUNDS + 1):
        for sure in (True, False) if number % 2 else (False, True):
            captioner.confidence = known if sure else None
            begun = time.perf_counter()
            for _ in captioner.records(photos):
                pass
            if number:  # the first round warms up
                seconds[sure].append(time.perf_counter() - begun)
    captioner.confidence = known
    ratios = [without / having for having, without in zip(seconds[True], seconds[False], strict=True)]
    print(
        f"photos/s: {len(photos) / statistics.median(seconds[False]):.1f} without, "
        f"{len(photos) / statistics.median(seconds[True]):.1f} with confidence; "
        f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    )


def diagram(judged: Mapping[str, Judged], path: Path) -> None:
    """Reliability: in ten bins of confidence the share of good captions, and how many captions there are."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(judged), figsize=(4.2 * len(judged), 4.2), sharey=True, squeeze=False)
    for place, (name, one) in enumerate(judged.items()):
        bins = np.minimum((one.probability * 10).astype(int), 9)
        used = [number for number in range(10) if (bins == number).any()]
        sure: list[float] = [float(one.probability[bins == number].mean()) for number in used]
        good: list[float] = [float(one.good[bins == number].mean()) for number in used]
        share: FloatArray = np.array([(bins == number).mean() for number in used])
        axes[0, place].bar([number / 10 + 0.05 for number in used], share, 0.1, color="#d8cfe6", label="share of captions")
        axes[0, place].plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
        axes[0, place].plot(sure, good, "o-", color="#5a2a82", label="good captions")
        error = calibration_error(one.probability, one.good)
        axes[0, place].set(
            title=f"{name} dev, {len(one.good)} photos, ECE {error:.3f}", xlabel="confidence", xlim=(0, 1), ylim=(0, 1)
        )
    axes[0, 0].set_ylabel("share")
    axes[0, 0].legend(loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    print(f"diagram: {path}")


def page(captioner: showtell.Captioner, folder: Path, output: Path, count: int = 40) -> None:
    """A page of pictures from all sources, with the plain caption, the one given, its confidence and the labels."""
    output.mkdir(parents=True, exist_ok=True)
    lists = {name: random.Random(0).sample(paths, len(paths)) for name, paths in pictures(folder)}
    chosen = [paths[turn] for turn in range(count) for paths in lists.values() if turn < len(paths)][:count]
    plain = captioner.records(chosen, confidence=WAYS["with words"])
    given = captioner.records(chosen, confidence=ConfidenceOptions(labels=True))
    rows = []
    for number, (path, before, after) in enumerate(zip(chosen, plain, given, strict=True), start=1):
        small = Image.open(path).convert("RGB")
        small.thumbnail((160, 160))
        small.save(output / f"{number:02}.jpg")
        likely = ", ".join(f"{label.name} {label.probability:.0%}" for label in after.labels or ())
        text = f"{after.caption} [{after.source}], confidence {after.confidence:.2f}, in_domain {after.in_domain:.2f}"
        print(f"  {number:02} {path.stem}: {before.caption} -> {text}; {likely}")
        rows.append(
            f"<tr><td>{number}<td><img src='{number:02}.jpg' alt=''><td>{html.escape(str(before.caption))}"
            f"<td>{html.escape(text)}<br>{html.escape(likely)}"
        )
    table = "<table border=1><tr><th><th>picture<th>as searched<th>given".join(["", ""]) + "".join(rows) + "</table>"
    (output / "index.html").write_text(
        f"<!doctype html><meta charset=utf-8><title>Out of domain</title>{table}", encoding="utf-8"
    )
    print(f"page: {output / 'index.html'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--model")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--ood", type=Path)
    parser.add_argument("--diagram", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--rates", action="store_true")
    arguments = parser.parse_args()
    captioner = showtell.load(arguments.model, threads=arguments.threads)
    if captioner.confidence is None:
        raise SystemExit(f"{captioner.name} has no confidence model; make one with showtell calibrate")
    datasets = {dataset.name: dataset for dataset in map(read, arguments.datasets)}
    batches: dict[str, Batches] = {}
    for name, dataset in datasets.items():
        found = grid_features(captioner, dataset, dataset.split("dev"), name, silent)
        batches[name] = [(batch, features.astype(np.float16)) for batch, features in found]
        ways(captioner, name, batches[name])
        label_hits(captioner, name, batches[name])
    judged = {name: judge_split(captioner, name, widened(part)) for name, part in batches.items()}
    styles = {name: name if name in captioner.styles else "" for name in datasets}
    judged = dict(fit_calibration(captioner.confidence, judged, styles).dev)
    for name, one in judged.items():
        calibration(name, one)
    if len(judged) > 1:
        fields = ("signals", "cider", "good", "probability")
        together = {field: np.concatenate([getattr(one, field) for one in judged.values()]) for field in fields}
        calibration("together", replace(next(iter(judged.values())), **together))
    if arguments.diagram:
        diagram(judged, arguments.diagram)
    if arguments.ood:
        domain(captioner, [pair for part in batches.values() for pair in part], arguments.ood)
    if arguments.ood and arguments.page:
        page(captioner, arguments.ood, arguments.page)
    if arguments.rates:
        rates(captioner, next(iter(datasets.values())))


if __name__ == "__main__":
    main()
