"""Export, bundles and the onnxruntime captioner, against the torch model that they came from."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import showtell
from conftest import draw
from showtell.bundle import CARD, FILES, Bundle
from showtell.data import read
from showtell.decoding import search
from showtell.errors import BundleError, ImageError, OptionError, OutputError
from showtell.export import calibration_inputs, export
from showtell.image import read_photo, read_rgb, to_pixels
from showtell.nn.model import TorchStepModel
from showtell.runtime.pipeline import Sizes
from showtell.train.run import checkpoint


def hundred_photos() -> list[Image.Image]:
    """Shapes with noise, a hundred different ones."""
    rng = np.random.default_rng(0)
    photos = []
    for number in range(100):
        image = draw(
            rng.choice(["red", "green", "blue", "yellow"]), rng.choice(["fence", "square", "cross"]), 64, number % 13 - 6
        )
        noisy = np.asarray(image).astype(int) + rng.normal(0, 10, (64, 64, 3))
        photos.append(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))
    return photos


def test_float32_export_equals_torch(learnt: Path, float_bundle: Path) -> None:
    model = checkpoint.find(learnt).load_model()
    captioner = showtell.load(float_bundle)
    pixels = np.stack([to_pixels(read_rgb(photo), model.preprocessing) for photo in hundred_photos()])
    inputs = torch.from_numpy(model.preprocessing.normalize(pixels))
    with torch.inference_mode():
        torch_features = torch.cat([model.encoder(part) for part in inputs.split(20)]).numpy()
    features = np.concatenate([captioner.features(part) for part in np.array_split(pixels, 5)])
    assert np.abs(features - torch_features).max() < 1e-3 * np.abs(torch_features).max()

    # Word by word over the same words: log-probabilities within 1e-3.
    theirs, ours = TorchStepModel(model.decoder), captioner.decoder
    their_state, our_state = theirs.start(torch_features), ours.start(features)
    tokens = np.ones((100, 1), np.int64)
    for _ in range(6):
        their_step, our_step = theirs.step(tokens, their_state), ours.step(tokens, our_state)
        assert np.abs(their_step.log_probs - our_step.log_probs).max() < 1e-3
        assert np.abs(their_step.attention - our_step.attention).max() < 1e-3
        their_state, our_state = their_step.state, our_step.state
        tokens = their_step.log_probs.argmax(-1)

    options = captioner.options(beam_size=3)
    expected = search(theirs, torch_features, model.vocabulary.search_tokens(), options)
    found = search(ours, features, model.vocabulary.search_tokens(), options)
    equal = sum(a[0].tokens == b[0].tokens for a, b in zip(expected, found, strict=True))
    assert equal >= 99
    assert len({hypotheses[0].tokens for hypotheses in found}) > 3  # the model does say different things


def test_int8_bundle_says_the_same_and_is_small(float_bundle: Path, int8_bundle: Path, shapes: Path) -> None:
    photos = sorted((shapes / "images").glob("*.jpg"))
    exact, small = showtell.load(float_bundle)(photos), showtell.load(int8_bundle)(photos)
    same = sum(a.text == b.text for a, b in zip(exact, small, strict=True))
    assert same >= 0.9 * len(photos)
    sizes = {file: ((float_bundle / file).stat().st_size, (int8_bundle / file).stat().st_size) for file in FILES}
    assert sizes["step.onnx"][1] < 0.5 * sizes["step.onnx"][0]
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(int8_bundle / "step.onnx").graph.node}
    assert json.loads((int8_bundle / "config.json").read_text())["quantization"] == "int8"


def test_captioner_takes_paths_bytes_images_and_arrays(float_bundle: Path, shapes: Path) -> None:
    captioner = showtell.load(float_bundle)
    path = shapes / "images" / "green-cross-2.jpg"
    with Image.open(path) as image:
        image.load()
    caption = captioner(path)
    assert isinstance(caption, showtell.Caption)
    assert "green" in caption.tokens
    assert caption.score <= 0
    assert " ".join(caption.tokens) == caption.text
    for source in (str(path), path.read_bytes(), image, np.asarray(image)):
        assert captioner(source).text == caption.text
    many = captioner([path, shapes / "images" / "red-fence-2.jpg"])
    assert many[0].text == caption.text
    assert "red" in many[1].tokens
    assert captioner([]) == []


def test_n_best_and_options(float_bundle: Path, shapes: Path) -> None:
    captioner = showtell.load(float_bundle)
    path = shapes / "images" / "green-cross-2.jpg"
    caption = captioner(path, num_captions=4)
    texts = [caption.text, *(other.text for other in caption.alternatives)]
    assert len(set(texts)) == 4
    scores = [caption.score, *(other.score for other in caption.alternatives)]
    assert scores == sorted(scores, reverse=True)
    drawn = [captioner(path, sample=True, seed=7, temperature=3.0, num_captions=3) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len(captioner(path, max_length=1).tokens) == 1
    with pytest.raises(OptionError, match="beam_size"):
        captioner(path, beam_size=0)


def test_batches_do_not_change_captions(float_bundle: Path, shapes: Path) -> None:
    captioner = showtell.load(float_bundle)
    photos = sorted((shapes / "images").glob("*.jpg"))
    one_by_one = [record.caption for record in captioner.records(photos, batch_size=1)]
    batched = [record.caption for record in captioner.records(photos, batch_size=7, workers=3)]
    assert one_by_one == batched


def test_any_number_of_threads_says_the_same(int8_bundle: Path, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    photos = sorted((shapes / "images").glob("*.jpg"))[:25]
    photos.insert(7, tmp_path / "bad.jpg")
    one, several = showtell.load(int8_bundle, threads=1), showtell.load(int8_bundle, threads=3)
    expected = [(record.path, record.caption) for record in one.records(photos, workers=1)]
    assert [path for path, _ in expected] == [str(path) for path in photos]
    for captioner, batch_size in ((one, 3), (several, 8), (several, 1)):
        found = captioner.records(iter(photos), batch_size=batch_size)
        assert [(record.path, record.caption) for record in found] == expected
    good = [path for path in photos if path.name != "bad.jpg"]
    assert [caption.text for caption in several(good)] == [caption for _, caption in expected if caption is not None]


def test_features_and_search_may_be_called_by_many_threads(float_bundle: Path, shapes: Path) -> None:
    captioner = showtell.load(float_bundle, threads=3)
    options = captioner.options(beam_size=3)
    photos = sorted((shapes / "images").glob("*.jpg"))[:25]
    pixels = [read_photo(path, captioner.bundle.preprocessing).pixels[None] for path in photos]

    def caption(one: np.ndarray) -> str:
        return captioner.search(captioner.features(one), options)[0][0].text

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(caption, pixels)) == [caption(one) for one in pixels]
    together = captioner.search(captioner.features(np.concatenate(pixels)), options)  # shared out over three threads
    assert [captions[0].text for captions in together] == [caption(one) for one in pixels]


def test_one_bad_photo_never_ends_a_run(float_bundle: Path, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    good = sorted((shapes / "images").glob("*.jpg"))[:3]
    captioner = showtell.load(float_bundle)
    records = list(captioner.records([good[0], tmp_path / "bad.jpg", tmp_path / "none.jpg", *good[1:]]))
    assert [record.status for record in records] == ["ok", "error", "error", "ok", "ok"]
    assert [record.error_code for record in records] == [None, "not-an-image", "not-found", None, None]
    assert records[0].to_json()["width"] == 64
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        captioner([good[0], tmp_path / "bad.jpg"])


def test_records_are_streamed(float_bundle: Path, shapes: Path) -> None:
    photo = shapes / "images" / "green-cross-2.jpg"
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield photo

    records = showtell.load(float_bundle, threads=2).records(endless(), batch_size=4)
    assert [next(records).status for _ in range(5)] == ["ok"] * 5
    assert taken <= 4 * Sizes(batch=4, searched=8, threads=2, workers=2).in_flight
    records.close()


def test_altered_and_foreign_bundles_are_refused(float_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(float_bundle, tmp_path / "copy"))
    data = bytearray((copy / "step.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "step.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"step\.onnx: altered"):
        showtell.load(copy)
    (copy / "step.onnx").unlink()
    with pytest.raises(BundleError, match=r"step\.onnx: missing"):
        showtell.load(copy)
    config = json.loads((copy / "config.json").read_text())
    shutil.copy(float_bundle / "step.onnx", copy)
    for change, named in (
        ({"format": 2}, "format 2"),
        ({"preprocessing": {"sizes": 1}}, "sizes"),
        ({"search": {"beam": 1}}, "beam"),
        ({"files": {}}, "vocab.json"),
        ({"architecture": {"encoder": {}, "decoder": {"vocabulary": 3}}}, "3 words"),
    ):
        (copy / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(BundleError, match=named):
            Bundle.read(copy)
    for nothing in (tmp_path / "nowhere", "no-such-model"):
        with pytest.raises(BundleError, match="no such bundle"):
            showtell.load(nothing)


def test_export_refuses_what_it_cannot_do(learnt: Path, float_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="already exists"):
        export(checkpoint.find(learnt), float_bundle)
    with pytest.raises(OutputError, match="calibrate"):
        export(checkpoint.find(learnt), tmp_path / "new", quantize="int8")
    with pytest.raises(OutputError, match=r"card\.md: not readable"):
        export(checkpoint.find(learnt), tmp_path / "new", card=tmp_path / "card.md")
    assert not (tmp_path / "new").exists()


def test_a_model_card_travels_in_the_bundle(learnt: Path, float_bundle: Path, tmp_path: Path) -> None:
    assert not (float_bundle / CARD).exists()
    (tmp_path / "card.md").write_text("# Knows squares only – and circles\n", encoding="utf-8")
    export(checkpoint.find(learnt), tmp_path / "new", card=tmp_path / "card.md")
    copied = Bundle.read(tmp_path / "new").folder / CARD
    assert copied.read_text(encoding="utf-8") == "# Knows squares only – and circles\n"
    copied.write_text("# Knows everything\n")
    with pytest.raises(BundleError, match=r"model-card\.md: altered"):
        Bundle.read(tmp_path / "new")
    copied.unlink()
    with pytest.raises(BundleError, match=r"model-card\.md: missing"):
        Bundle.read(tmp_path / "new")


@pytest.mark.real
def test_calibration_uses_train_photos_only(learnt: Path, flickr8k: Path) -> None:
    inputs = calibration_inputs(checkpoint.find(learnt), flickr8k, 5)
    assert [photo.shape for photo in inputs] == [(3, 224, 224)] * 5
    dataset = read(flickr8k)
    first = min(sample.image for sample in dataset.split("train"))
    preprocessing = checkpoint.find(learnt).load_model().preprocessing
    pixels = to_pixels(read_rgb(dataset.photos.read(first)), preprocessing)
    assert np.allclose(inputs[0], preprocessing.normalize(pixels))
