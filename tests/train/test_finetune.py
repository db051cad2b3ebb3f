"""Fine-tuning: the vocabulary grows, old photos come along, old skills are measured."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from fakes import RecordingReporter
from showtell.data import read as read_dataset
from showtell.errors import DataError, RecipeError
from showtell.nn.attention_lstm import AttentionLSTM, DecoderConfig
from showtell.train.finetune import grown, with_replay
from showtell.train.recipe import Recipe
from showtell.train.run import checkpoint
from showtell.train.train import train
from showtell.vocabulary import SPECIAL, Vocabulary


def rings(folder: Path) -> Path:
    """A data set of another kind of picture, with words that the shapes lack: white and black rings on purple."""
    (folder / "images").mkdir(parents=True)
    tokens: list[str] = []
    splits: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for ink in ("white", "black"):
        for number, split in enumerate(("train", "train", "dev", "train", "train")):
            image = Image.new("RGB", (64, 64), (130, 40, 160))
            ImageDraw.Draw(image).ellipse((10 + 2 * number, 14, 44 + 2 * number, 48), outline=ink, width=7)
            name = f"{ink}-ring-{number}.png"
            image.save(folder / "images" / name)
            splits[split].append(name)
            tokens += [f"{name}#0\tA {ink} ring .", f"{name}#1\tthere is a {ink} ring on purple"]
    (folder / "Flickr8k.token.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    for split, names in splits.items():
        (folder / f"Flickr_8k.{split}Images.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return folder


def test_vocabulary_grows_at_its_end() -> None:
    old = Vocabulary((*SPECIAL, "a", "dog"))
    captions = [["a", "cat", "sits"], ["a", "cat", "&", "a", "dog"], ["a", "tree"]]
    assert old.extended(captions, 2).words == (*SPECIAL, "a", "dog", "cat")
    assert old.extended(captions, 1).words == (*SPECIAL, "a", "dog", "cat", "sits", "tree")
    assert old.extended([], 1) == old


def test_a_grown_decoder_keeps_what_it_knew() -> None:
    torch.manual_seed(0)
    old = AttentionLSTM(DecoderConfig(vocabulary=500, features=16, hidden=24, attention=8))
    with torch.no_grad():
        old.embedding.weight[len(SPECIAL) :, 0] += 3  # words have something in common
        old.vocabulary_bias.normal_()
    new = grown(old, 900)
    assert new.config.vocabulary == 900
    before, after = old.state_dict(), new.state_dict()
    for name, value in before.items():
        assert torch.equal(after[name][:500] if value.shape[:1] == (500,) else after[name], value), name
    fresh = after["embedding.weight"][500:]
    words = before["embedding.weight"][len(SPECIAL) :]
    assert torch.allclose(fresh.mean(0), words.mean(0), atol=0.06)
    assert torch.allclose(fresh.std(0), words.std(0), atol=0.05)
    assert (after["vocabulary_bias"][500:] == before["vocabulary_bias"][len(SPECIAL) :].min()).all()
    assert grown(old, 500) is old


@pytest.fixture(scope="module")
def run(learnt: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioner of shapes that went on with rings, old photos replayed."""
    folder = tmp_path_factory.mktemp("finetuned")
    sets = [
        f"init={learnt}",
        "vocabulary.min_count=1",
        "finetune.new_words=true",
        f"finetune.old_data={shapes}",
        "finetune.replay=1.5",
        f"encoder.cache={folder / 'cache'}",
        "training.epochs=25",
        "training.max_photos=0",
        "training.log_every=100",
    ]
    train(Recipe.load("debug", sets), rings(folder / "rings"), folder / "run", resume=False, report=RecordingReporter())
    return folder / "run"


def test_new_words_are_learnt_and_skills_measured(run: Path, learnt: Path) -> None:
    old = checkpoint.best(learnt).load_model().vocabulary
    best = checkpoint.best(run)
    assert best.load_model().vocabulary.words == (*old.words, "ring", "black", "purple", "white")
    found = json.loads((run / "finetune.json").read_text())
    before, after = found["before"], found["after"]
    assert before["old"] == pytest.approx(checkpoint.best(learnt).scores, abs=1)  # the start model, measured anew
    assert before["new"]["CIDEr"] < 60 < 200 < after["new"]["CIDEr"]
    assert after["new"] == best.scores
    assert after["old"]["CIDEr"] > 150  # what replay kept of over 300
    assert found["words"] == len(old) + 4
    assert found["epoch"] == best.epoch


def test_new_words_and_those_that_stay_unknown_are_named(learnt: Path, tmp_path: Path) -> None:
    data = rings(tmp_path / "rings")
    file = data / "Flickr8k.token.txt"
    file.write_text(
        file.read_text().replace("white-ring-0.png#0\tA white ring .", "white-ring-0.png#0\tA white zebra & ring .")
    )
    for name, sets, told in (
        (
            "grown",
            ["finetune.new_words=true", "vocabulary.min_count=8"],
            [
                "4 words of the train captions are new: ring (16), black (8), purple (8), white (8)",
                "1 words of the train captions stay unknown, seen less than 8 times (vocabulary.min_count): zebra (1)",
            ],
        ),
        (
            "kept",
            [],
            [
                "5 words of the train captions stay unknown (finetune.new_words=true adds them): "
                "ring (16), black (8), purple (8), white (8), zebra (1)"
            ],
        ),
    ):
        log = RecordingReporter()
        sets = [*sets, f"init={learnt}", f"encoder.cache={tmp_path / 'cache'}", "training.epochs=1"]
        train(Recipe.load("debug", sets), data, tmp_path / name, resume=False, report=log)
        assert [message for message in log.messages if "words of the train captions" in message] == told
    assert json.loads((tmp_path / "grown" / "words.json").read_text()) == {
        "new": {"ring": 16, "black": 8, "purple": 8, "white": 8},
        "unknown": {"zebra": 1},
    }


def test_the_recipe_for_few_photos_does_not_learn_them_by_heart(learnt: Path, tmp_path: Path) -> None:
    sets = [f"init={learnt}", f"encoder.cache={tmp_path / 'cache'}", "training.patience=0", "finetune.new_words=false"]
    train(
        Recipe.load("finetune-small", sets),
        rings(tmp_path / "rings"),
        tmp_path / "run",
        resume=False,
        report=RecordingReporter(),
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    small = [line["dev_loss"] for line in lines if "scores" in line]
    assert small[-1] < small[0]  # it learns
    assert small[-1] <= min(small) + 0.02  # and does not unlearn


def test_a_resumed_run_keeps_what_was_measured_before(run: Path, shapes: Path) -> None:
    found = json.loads((run / "finetune.json").read_text())
    (run / "finetune.json").write_text(json.dumps({**found, "before": "as it was"}))
    recipe = Recipe.model_validate(json.loads((run / "recipe.json").read_text()))
    with pytest.raises(TypeError):  # the report of changes cannot read the mark that this test left
        train(recipe, run.parent / "rings", run, resume=True, report=RecordingReporter())
    assert json.loads((run / "finetune.json").read_text())["before"] == "as it was"
    (run / "finetune.json").write_text(json.dumps(found))


def test_replay_draws_old_train_photos_alone(shapes: Path, tmp_path: Path) -> None:
    new, old = read_dataset(rings(tmp_path / "rings")), read_dataset(shapes)
    mixed = with_replay(new, old, 0.5, seed=1)
    added = set(mixed.split("train")) - set(new.split("train"))
    assert len(added) == 4  # of 8 new ones, half as many
    assert added <= set(old.split("train"))
    assert mixed.split("dev") == new.split("dev")
    assert mixed.photos.read("white-ring-0.png") == new.photos.read("white-ring-0.png")
    name = next(iter(added)).image
    assert mixed.photos.read(name) == old.photos.read(name)
    assert with_replay(new, old, 0.5, seed=1).samples == mixed.samples
    assert with_replay(new, old, 100, seed=1).split("train")[8:] == old.split("train")
    with pytest.raises(DataError, match="rename one"):
        with_replay(old, old, 1, seed=1)


def test_what_is_missing_is_said(shapes: Path, tmp_path: Path) -> None:
    cache = f"encoder.cache={tmp_path / 'cache'}"
    with pytest.raises(RecipeError, match="init=CHECKPOINT"):
        train(Recipe.load("finetune", [cache]), shapes, tmp_path / "run", resume=False, report=RecordingReporter())
    with pytest.raises(RecipeError, match="old_data"):
        Recipe.load("finetune", ["finetune.replay=1"])
    with pytest.raises(RecipeError, match="init=CHECKPOINT"):
        train(
            Recipe.load("debug", ["training.objective=scst", cache]),
            shapes,
            tmp_path / "scst",
            resume=False,
            report=RecordingReporter(),
        )
