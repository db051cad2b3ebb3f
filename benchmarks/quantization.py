"""The choices in quantising the encoder: error of the features, photos a second and, if asked for, CIDEr on the dev photos.

    python benchmarks/quantization.py RUN_OR_CHECKPOINT FLICKR8K [--variants shipped,reduce-range,...] [--photos 64]
        [--calibration-photos 96] [--cider] [--json FILE]

Each variant changes one thing of what ships. The error is that of the grid features of dev photos, |int8 - float32| over
|float32|, both summed. `arithmetic` is the difference from the same graph with its int8 operators computed as they are written,
with float32 in between. Fused operators round in other places, so it is never nothing; what overflows on processors without
VNNI comes on top, except with `reduce-range`, which is therefore what to compare it with. The rate is the encoder's on one
thread at batch 8, all variants and float32 in turns. With --cider all dev photos are captioned by the exported decoder in
float32, which takes minutes a variant. Calibrating takes a minute or two a variant and some 150 MB of memory a calibration
photo. Each line is printed when it is known, and --json is written after each, so that what was done is kept.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from showtell import metrics
from showtell.arrays import Array
from showtell.bundle import Bundle
from showtell.data import read
from showtell.decoding import search
from showtell.export import EncoderInt8, calibration_inputs, quantize_encoder, write_graphs
from showtell.image import read_photo
from showtell.runtime.sessions import OnnxEncoder, OnnxStepModel
from showtell.text import detokenize
from showtell.train.run import checkpoint

SHIPPED = EncoderInt8()
VARIANTS: dict[str, tuple[EncoderInt8, int | None]] = {
    "shipped": (SHIPPED, None),
    "extremes": (replace(SHIPPED, percentile=100), None),
    "percentile-99.99": (replace(SHIPPED, percentile=99.99), None),
    "calibration-24": (SHIPPED, 24),
    "calibration-48": (SHIPPED, 48),
    "per-tensor": (replace(SHIPPED, per_channel=False), None),
    "s8s8": (replace(SHIPPED, signed_activations=True), None),
    "reduce-range": (replace(SHIPPED, reduce_range=True), None),
    "all-int8": (replace(SHIPPED, float_first=False), None),
    "float-first-and-last": (replace(SHIPPED, float_last=True), None),
}


def exactly(path: Path, inputs: list[Array]) -> Array:
    """Features of the graph with its int8 operators left as they are written: rounding, and float32 between."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["features"], {"pixels": one})[0] for one in inputs])


def error(found: Array, expected: Array) -> float:
    """Relative, by sums of absolute values."""
    return float(np.abs(found - expected).sum() / np.abs(expected).sum())


def main() -> None:
    """Quantises, compares and prints, variant by variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--photos", type=int, default=64)
    parser.add_argument("--calibration-photos", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cider", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    names = arguments.variants.split(",")
    if unknown := set(names) - set(VARIANTS):
        parser.error(f"unknown variant {sorted(unknown)[0]!r}; known are {', '.join(VARIANTS)}")
    found = checkpoint.find(arguments.checkpoint)
    model = found.load_model()
    dataset = read(arguments.data)
    samples = dataset.split("dev")
    wants = model.preprocessing

    def inputs(chosen: list[str]) -> list[Array]:
        pixels = [read_photo(dataset.photos.read(name), wants, name).pixels for name in chosen]
        return [wants.normalize(np.stack(pixels[start : start + 8])) for start in range(0, len(pixels), 8)]

    spread = np.linspace(0, len(samples) - 1, arguments.photos).astype(int)
    photos = inputs([samples[place].image for place in spread])
    counts = {count or arguments.calibration_photos for _, count in (VARIANTS[name] for name in names)}
    calibration = {count: calibration_inputs(found, arguments.data, count) for count in counts}
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_graphs(model, folder)
        exact = OnnxEncoder(folder, 1, "cpu")
        features = np.concatenate([exact(one) for one in photos])
        encoders = {"float32": exact}
        for name in names:
            how, count = VARIANTS[name]
            target = folder / name
            target.mkdir()
            path = target / "encoder.onnx"
            path.write_bytes((folder / "encoder.onnx").read_bytes())
            quantize_encoder(path, model.encoder, calibration[count or arguments.calibration_photos], how)
            encoders[name] = OnnxEncoder(target, 1, "cpu")
            got = np.concatenate([encoders[name](one) for one in photos])
            results[name] = {
                "error": round(error(got, features), 4),
                "arithmetic": round(error(got, exactly(path, photos)), 4),
                "megabytes": round(path.stat().st_size / 1e6, 1),
            }
            print(name, json.dumps(results[name]), flush=True)
            keep(arguments.json, results)
        times: dict[str, list[float]] = {name: [] for name in encoders}
        for number in range(arguments.rounds + 1):
            for name, encoder in encoders.items():
                started = time.perf_counter()
                for one in photos[:4]:
                    encoder(one)
                if number:
                    times[name].append(time.perf_counter() - started)
        for name, seconds in times.items():
            rate = [sum(map(len, photos[:4])) / second for second in seconds]
            results.setdefault(name, {})["photos_per_second"] = round(statistics.median(rate), 2)
            print(name, json.dumps(results[name]), flush=True)
        keep(arguments.json, results)
        if arguments.cider:
            decoder, options = OnnxStepModel(folder, 1, "cpu"), Bundle.find(None).search
            ids = model.vocabulary.search_tokens()
            for name, encoder in encoders.items():
                captions = {}
                for start in range(0, len(samples), 32):
                    part = samples[start : start + 32]
                    grids = np.concatenate([encoder(one) for one in inputs([sample.image for sample in part])])
                    for sample, best in zip(part, search(decoder, grids, ids, options), strict=True):
                        captions[sample.image] = detokenize(model.vocabulary.decode(best[0].tokens))
                scores = metrics.score(captions, {sample.image: sample.captions for sample in samples}).corpus
                results[name]["CIDEr"] = round(scores["CIDEr"], 2)
                print(name, json.dumps(results[name]), flush=True)
                keep(arguments.json, results)
    columns = list(dict.fromkeys(key for row in results.values() for key in row))
    print(f"| variant | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    for name, row in results.items():
        print(f"| {name} | {' | '.join(str(row.get(column, '')) for column in columns)} |")


def keep(file: Path | None, results: dict[str, Any]) -> None:
    """Writes what is known so far."""
    if file is not None:
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
