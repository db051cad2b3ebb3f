"""Caption styles: a begin token for each of several data sets, in training and in every search."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import showtell
from conftest import write_flickr8k
from fakes import RecordingReporter
from showtell.cli.main import cli
from showtell.data import joined
from showtell.data import read as read_dataset
from showtell.errors import DataError, OptionError, RecipeError
from showtell.export import export
from showtell.metrics import score
from showtell.train.finetune import with_new_words
from showtell.train.inputs.batches import EncodedCaptions, tokenized
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.train.train import train
from showtell.vocabulary import BEGIN, END, PAD, SPECIAL, UNKNOWN, Vocabulary, style_token


@pytest.fixture(scope="module")
def odes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shapes under other names, described in another way."""
    folder = write_flickr8k(tmp_path_factory.mktemp("odes"))
    tokens = folder / "Flickr8k.token.txt"
    lines = []
    for line in tokens.read_text().splitlines():
        photo, caption = line.split("\t")
        colour, shape, _ = photo.split("-", 2)
        lines.append(f"ode-{photo}\tbehold one {shape} so {colour}" if photo.endswith("#0") else f"ode-{photo}\t{caption}")
    tokens.write_text("\n".join(line for line in lines if "behold" in line) + "\n")
    for photo in (folder / "images").iterdir():
        photo.rename(photo.with_name(f"ode-{photo.name}"))
    for split in folder.glob("Flickr_8k.*"):
        split.write_text("".join(f"ode-{name}\n" for name in split.read_text().splitlines()))
    return folder


@pytest.fixture(scope="module")
def bilingual(shapes: Path, odes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RecordingReporter]:
    """A run that knows both sets by heart, and what it reported."""
    folder, log = tmp_path_factory.mktemp("bilingual"), RecordingReporter()
    sets = [f"encoder.cache={folder / 'cache'}", "training.epochs=30", "training.max_photos=0"]
    recipe = Recipe.load("debug", [*sets, 'vocabulary.styles=["plain", "ode"]'])
    train(recipe, [shapes, odes], folder / "run", resume=False, report=log)
    return folder / "run", log


def test_search_tokens_begin_with_the_style() -> None:
    words = (*SPECIAL, "a", "dog", style_token("plain"), style_token("ode"))
    vocabulary = Vocabulary(words)
    assert vocabulary.styles == ("plain", "ode")
    assert vocabulary.search_tokens().begin == 6  # the default is the first
    tokens = vocabulary.search_tokens("ode")
    assert (tokens.begin, tokens.end, set(tokens.never)) == (7, END, {PAD, BEGIN, UNKNOWN, 6, 7})
    with pytest.raises(OptionError, match="style 'poem' is not one of this model's; it has plain, ode"):
        vocabulary.search_tokens("poem")
    plain = Vocabulary(words[:6])
    assert plain.search_tokens().begin == BEGIN
    with pytest.raises(OptionError, match="it has no styles"):
        plain.search_tokens("ode")


def test_captions_are_read_from_their_style_on() -> None:
    vocabulary = Vocabulary((*SPECIAL, "a", "dog")).with_styles(["plain", "ode"])
    captions = [[[style_token("ode"), "a", "dog"], ["a"]], [[style_token("plain"), "dog"]]]
    written = EncodedCaptions(captions, vocabulary, rule="ptb", max_words=30)
    assert written.inputs[0].tolist() == [[7, 4, 5], [6, 4, END]]  # without a style it is the default one
    assert written.targets[0].tolist() == [[4, 5, END], [4, END, PAD]]
    assert written.inputs[1, 0, :2].tolist() == [6, 5]
    assert written.lengths.tolist() == [[3, 2], [2, 0]]


def test_joined_data_sets_keep_their_photos_splits_and_styles(shapes: Path, odes: Path) -> None:
    first, second = read_dataset(shapes), read_dataset(odes)
    both = joined([first, second], ["plain", "ode"])
    assert len(both.split("dev")) == len(first.split("dev")) + len(second.split("dev"))
    assert {sample.style for sample in both.samples if sample.image.startswith("ode-")} == {"ode"}
    assert both.photos.read("ode-red-cross-0.jpg") == second.photos.read("ode-red-cross-0.jpg")
    captions = tokenized(both.samples, "ptb")
    assert captions["ode-red-cross-0.jpg"] == [["<style:ode>", "behold", "one", "cross", "so", "red"]]
    with pytest.raises(DataError, match="red-fence-0.jpg is a photo of two"):
        joined([first, first])


def test_a_fine_tuned_model_begins_a_new_style_as_it_began_before(learnt: Path) -> None:
    model = checkpoint.find(learnt).load_model()
    grown = with_new_words(model, {}, 1, ["plain", "ode"])
    weight = grown.decoder.embedding.weight
    for style in ("plain", "ode"):
        assert weight[grown.vocabulary.search_tokens(style).begin].equal(weight[BEGIN])
    with torch.no_grad():
        weight[grown.vocabulary.search_tokens("plain").begin] += 1
    again = with_new_words(grown, {}, 1, ["plain", "ode", "poem"])
    weight = again.decoder.embedding.weight
    assert weight[again.vocabulary.search_tokens("poem").begin].equal(weight[again.vocabulary.search_tokens().begin])


def test_fine_tuning_describes_a_set_in_the_style_of_its_name(
    bilingual: tuple[Path, RecordingReporter], shapes: Path, odes: Path, tmp_path: Path
) -> None:
    shutil.copytree(odes, tmp_path / "ode")
    sets = [f"init={bilingual[0]}", f"encoder.cache={bilingual[0].parent / 'cache'}", "training.epochs=1"]
    recipe = Recipe.load("finetune", [*sets, f"finetune.old_data={tmp_path / 'ode'}", "finetune.replay=0.5"])
    train(recipe, shapes, tmp_path / "run", resume=False, report=RecordingReporter())
    found = json.loads((tmp_path / "run" / "finetune.json").read_text())
    assert (
        found["before"]["old"]["BLEU-4"] > 50
    )  # "behold one cross so red"; in the default style there would be nothing in common
    assert found["after"]["old"]["BLEU-4"] > 50


def test_a_style_for_each_data_set_is_asked_for(shapes: Path, tmp_path: Path) -> None:
    recipe = Recipe.load("debug", ['vocabulary.styles=["plain", "ode"]'])
    with pytest.raises(RecipeError, match="one style for each data set, and there are 1"):
        train(recipe, shapes, tmp_path / "run", resume=False, report=RecordingReporter())


def test_each_set_is_captioned_in_its_style(
    bilingual: tuple[Path, RecordingReporter], shapes: Path, odes: Path, tmp_path: Path
) -> None:
    run, log = bilingual
    best = checkpoint.best(run)
    by_style = best.config.scores_by_style
    assert set(by_style) == {"plain", "ode"}
    assert best.scores["CIDEr"] == pytest.approx((by_style["plain"]["CIDEr"] + by_style["ode"]["CIDEr"]) / 2, abs=0.01)
    assert any("ode CIDEr" in line and "plain CIDEr" in line for line in log.messages)
    export(best, tmp_path / "bundle")
    shutil.copytree(odes, tmp_path / "ode")
    shutil.copytree(shapes, tmp_path / "plain")
    sets = ["--data", str(tmp_path / "ode"), "--data", str(tmp_path / "plain"), "--json", str(tmp_path / "scores.json")]
    assert cli.main(["evaluate", *sets, "--model", str(tmp_path / "bundle")], standalone_mode=False) == 0
    found = json.loads((tmp_path / "scores.json").read_text())["sets"]
    for style in ("plain", "ode"):  # each in its own style
        assert found[style]["scores"]["CIDEr"] == pytest.approx(by_style[style]["CIDEr"], abs=0.01)
        assert f"style {style}" in found[style]["name"]
    captioner = showtell.load(tmp_path / "bundle")
    photo = odes / "images" / "ode-red-cross-2.jpg"
    assert captioner(photo).text.startswith(("a ", "there is a "))
    assert captioner(photo, style="ode").text == "behold one cross so red"
    with pytest.raises(OptionError, match="it has plain, ode"):
        captioner(photo, style="poem")
    dataset = read_dataset(odes)
    names = [sample.image for sample in dataset.split("dev")]
    captions = captioner([dataset.photos.read(name) for name in names], style="ode")
    references = {sample.image: sample.captions for sample in dataset.split("dev")}
    scores = score({name: caption.text for name, caption in zip(names, captions, strict=True)}, references).corpus
    assert scores["CIDEr"] == pytest.approx(by_style["ode"]["CIDEr"], abs=0.01)
