"""Fitting confidence: the parts on made-up numbers with a known answer, and all of it on a tiny data set by the command."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import showtell
from conftest import draw
from showtell.bundle import Bundle
from showtell.confidence import Parameters
from showtell.confidence.model import FILE
from showtell.errors import BundleError, DataError
from showtell.evaluation.calibrate import (
    Judged,
    auroc,
    calibration_error,
    fit_calibration,
    fit_detectors,
    fit_domain,
    fit_labels,
    judge,
)


def test_auroc_counts_pairs() -> None:
    assert auroc(np.array([3.0, 2.0]), np.array([1.0, 2.0])) == (1 + 1 + 1 + 0.5) / 4
    assert np.isnan(auroc(np.array([]), np.array([1.0])))


def test_calibration_error_is_the_gap_in_each_bin() -> None:
    probability = np.array([0.15, 0.15, 0.95, 0.95])
    good = np.array([False, True, True, True])
    assert calibration_error(probability, good) == pytest.approx((2 * 0.35 + 2 * 0.05) / 4)


def test_a_good_caption_is_near_its_references_and_names_nothing_else() -> None:
    references = {f"{number}": [f"a blue bus number {number}", f"bus {number} on a road"] for number in range(60)}
    captions = {photo: texts[0] for photo, texts in references.items()}
    captions |= {"0": "a blue bus number 0 with a dog and a cat", "1": "it is very nice"}
    cider, good = judge(captions, references)
    assert good[2:].all()
    assert cider[2:].min() > 50
    assert not good[:2].any()


def photos_of(rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[list[list[str]]]]:
    """Features whose first axis says whether there is a dog and whose second whether there is broccoli."""
    dog, food = rng.random((2, count)) < 0.5
    pooled = rng.normal(size=(count, 12)).astype(np.float32)
    pooled[:, 0] += 4 * dog
    pooled[:, 1] += 4 * food
    captions = [
        [f"{'a dog' if a else 'a car'} with {'broccoli' if b else 'a hat'}".split()] * 4 for a, b in zip(dog, food, strict=True)
    ]
    return pooled, captions


def test_labels_are_learned_and_put_into_phrases() -> None:
    rng = np.random.default_rng(1)
    labels = fit_labels(*photos_of(rng, 2000))
    assert set(labels.names) == {"dog", "broccoli", "car", "hat"}
    phrases = dict(zip(labels.names, labels.phrases, strict=True))
    assert (phrases["dog"], phrases["broccoli"]) == ("a dog", "broccoli")
    pooled, captions = photos_of(rng, 300)
    for name in ("dog", "broccoli"):
        likely = labels.probabilities(pooled)[:, labels.names.index(name)]
        there = np.array([name in texts[0] for texts in captions])
        assert auroc(likely[there], likely[~there]) > 0.9
        assert abs(likely.mean() - there.mean()) < 0.05


def test_labels_need_photos() -> None:
    with pytest.raises(DataError, match="train photos"):
        fit_labels(np.zeros((5, 4), np.float32), [[["a", "dog"]]] * 5)


def test_detectors_are_learned_for_words_that_are_neither_rare_nor_common() -> None:
    rng = np.random.default_rng(3)
    pooled, captions = photos_of(rng, 1000)
    rare = rng.random(1000) < 0.15
    pooled[:, 2] += 4 * rare
    captions = [
        [[*tokens, "outside"] if there else tokens for tokens in texts] for texts, there in zip(captions, rare, strict=True)
    ]
    captions[0] = [["a", "unique", "car"]]
    found = fit_detectors(fit_labels(pooled, captions), ["outside", "unique", "dog", "a"], pooled, captions)
    assert found.words == ("outside",)  # every other photo has a dog, and one alone is unique
    words = found.log_probabilities(fit_labels(pooled, captions).standardised(pooled))
    assert auroc(words[rare, 0], words[~rare, 0]) > 0.95


def test_domain_and_calibration_hold_on_other_photos() -> None:
    rng = np.random.default_rng(2)
    pooled, captions = photos_of(rng, 1000)
    pooled[:, 6:] *= 0.05  # photos hardly vary there
    labels = fit_labels(pooled, captions)
    confidence = fit_domain(labels, fit_detectors(labels, ["dog"], pooled, captions), pooled)
    assert confidence.parameters.spread > 0
    signals = rng.normal(size=(4000, 5))
    good = rng.random(4000) < 1 / (1 + np.exp(-(signals[:, 0] - 0.5 * signals[:, 3] + 0.3)))
    judged = {"x": Judged({}, {}, signals, np.zeros(4000), good, np.zeros(4000))}
    found = fit_calibration(confidence, judged, {"x": ""})
    weights = found.confidence.parameters.weights
    assert weights == pytest.approx((1, 0, 0, -0.5, 0), abs=0.15)
    assert found.confidence.parameters.bias[""] == pytest.approx(0.3, abs=0.15)
    assert found.dev["x"].measures()["ece"] < 0.05
    assert found.confidence.probability(signals[0]) == pytest.approx(float(found.dev["x"].probability[0]), abs=0.05)


def write_data(folder: Path) -> Path:
    """Forty fences and trees, twelve of them dev photos."""
    lines = []
    folder.mkdir()
    for number in range(52):
        colour, thing = ("red", "green", "blue", "yellow")[number % 4], ("fence", "tree")[number // 4 % 2]
        name = f"{number}.jpg"
        draw(colour, "fence" if thing == "fence" else "square", offset=number % 9 - 4).save(folder / name)
        split = "dev" if number >= 40 else "train"
        lines.append(
            {"image": name, "captions": [f"a {colour} {thing}", f"there is a {colour} {thing} on grey"], "split": split}
        )
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def test_the_command_calibrates_a_bundle(float_bundle: Path, tmp_path: Path, here: Callable[..., tuple[int, str, str]]) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(float_bundle, bundle)
    photo, command = tmp_path / "data" / "0.jpg", ("caption", tmp_path / "data" / "0.jpg", "--model", bundle)
    data = write_data(tmp_path / "data")

    # Without a confidence model there is none in the record, and nothing may depend on it.
    [record] = showtell.load(bundle).records([photo])
    assert (record.confidence, record.in_domain, record.labels, record.source) == (None, None, None, "model")
    status, _, said = here(*command, "--labels")
    assert status == 2
    assert "--labels" in said
    assert "calibrate" in said

    calibrate = ("calibrate", "--data", data, "--model", bundle, "--cache", tmp_path / "cache", "--threads", 1)
    status, _, said = here(*calibrate)
    assert status == 0, said
    assert "data dev: photos 12" in said
    before = Bundle.read(bundle).config
    assert FILE in before.files
    assert before.confidence.good["cider"] == 0.5
    status, _, said = here(*calibrate)  # from the cache, and over what is there
    assert status == 0, said
    assert Bundle.read(bundle).config.json == before.json

    [record] = showtell.load(bundle).records([photo], confidence=showtell.ConfidenceOptions(labels=True))
    assert 0 < record.confidence < 1
    assert 0 < record.in_domain <= 1
    assert {label.name for label in record.labels} == {"fence", "tree"}
    status, out, _ = here(*command, "--labels", "--format", "jsonl")
    assert status == 0
    written = json.loads(out)
    assert written["confidence"] == pytest.approx(record.confidence, abs=1e-3)
    assert written["source"] in ("model", "labels")
    assert len(written["labels"]) == 2

    # Too doubtful: no caption, a message, and success.
    status, out, said = here(*command, "--min-confidence", "1", "--format", "jsonl", "--no-fallback")
    assert status == 0
    assert json.loads(out)["status"] == "doubtful"
    assert "caption" not in json.loads(out)
    assert "doubtful" in said
    status, out, said = here("caption", data, "--model", bundle, "--min-confidence", "1", "--no-fallback")
    assert (status, out) == (0, "")
    assert "0 captioned, 0 failed" in said
    assert "52  too doubtful" in said

    # Its file is checked as all others are.
    (bundle / FILE).write_bytes(b"other")
    with pytest.raises(BundleError, match="altered"):
        Bundle.read(bundle)


def test_a_bundle_of_other_parameters_is_refused(float_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(float_bundle, bundle)
    config = json.loads((bundle / "config.json").read_text())
    parameters = {"weights": [1.0] * len(Parameters.__dataclass_fields__), "bias": {"": 0.0}, "strange": 0.5, "spread": 0.1}
    (bundle / "config.json").write_text(json.dumps({**config, "confidence": parameters}))
    with pytest.raises(BundleError, match="signals"):
        Bundle.read(bundle)
