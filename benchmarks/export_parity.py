"""How much of a checkpoint is left after export: torch against onnxruntime float32, and float32 against int8.

    python benchmarks/export_parity.py RUN_OR_CHECKPOINT FLICKR8K [--photos 100]

Prints the largest difference of log-probabilities over the same words, the share of equal captions, and, on the whole dev
split, the scores of both bundles, searched as the embedded model is. Choose nothing by it on the test split.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

import showtell
from showtell import metrics
from showtell.data import read
from showtell.decoding import search
from showtell.evaluation.run import caption_split
from showtell.export import calibration_inputs, export
from showtell.image import read_rgb, to_pixels
from showtell.nn.model import TorchStepModel
from showtell.train.run import checkpoint
from showtell.vocabulary import BEGIN


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=int, default=100)
    arguments = parser.parse_args()
    found = checkpoint.find(arguments.checkpoint)
    model = found.load_model()
    dataset = read(arguments.data)
    with tempfile.TemporaryDirectory() as temporary:
        folders = {kind: Path(temporary) / kind for kind in ("float32", "int8")}
        export(found, folders["float32"])
        export(found, folders["int8"], quantize="int8", calibration=calibration_inputs(found, arguments.data, 96))
        exact = showtell.load(folders["float32"])
        names = [sample.image for sample in dataset.split("dev")][: arguments.photos]
        pixels = np.stack([to_pixels(read_rgb(dataset.photos.read(name)), model.preprocessing) for name in names])
        with torch.inference_mode():
            inputs = torch.from_numpy(model.preprocessing.normalize(pixels))
            torch_features = torch.cat([model.encoder(part) for part in inputs.split(10)]).numpy()
        features = np.concatenate([exact.features(part) for part in np.array_split(pixels, 10)])
        print(f"features: largest difference {np.abs(features - torch_features).max():.2e} of {np.abs(features).max():.1f}")

        theirs, ours = TorchStepModel(model.decoder), exact.decoder
        their_state, our_state = theirs.start(torch_features), ours.start(features)
        tokens = np.full((len(names), 1), BEGIN)
        largest = 0.0
        for _ in range(12):
            their_step, our_step = theirs.step(tokens, their_state), ours.step(tokens, our_state)
            largest = max(largest, float(np.abs(their_step.log_probs - our_step.log_probs).max()))
            their_state, our_state, tokens = their_step.state, our_step.state, their_step.log_probs.argmax(-1)
        print(f"log-probabilities over 12 words of {len(names)} photos: largest difference {largest:.2e}")
        options = showtell.load().bundle.search  # the embedded model's
        expected = search(theirs, torch_features, model.vocabulary.search_tokens(), options)
        got = search(ours, features, model.vocabulary.search_tokens(), options)
        equal = sum(a[0].tokens == b[0].tokens for a, b in zip(expected, got, strict=True))
        print(f"captions equal: {equal} of {len(names)}")

        for kind, folder in folders.items():
            captioner = showtell.load(folder)
            run = caption_split(captioner, dataset, "dev", options)
            scores = metrics.score(run.candidates, run.references).corpus
            size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
            shown = "  ".join(f"{n} {v:.2f}" for n, v in scores.items())
            print(f"{kind} ({size:.1f} MB), dev, beam {options.beam_size}: {shown}")


if __name__ == "__main__":
    main()
