"""transformers' captioners of four families, tiny and with random weights, saved to disk: nothing is downloaded."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    GPT2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessorPil,
)

from serving import SOON, serving
from showtell.captioners import open_captioner
from showtell.cli.main import cli
from showtell.errors import OptionError, WeightsError

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "a", "dog", "cat", "on", "the", "grass", "USER", "ASSISTANT"]
SIZE = {"height": 32, "width": 32}
SHAPE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**SHAPE, "image_size": 32, "patch_size": 16}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TEXT = {**SHAPE, **IDS, "vocab_size": len(WORDS), "max_position_embeddings": 64}


def tokenizer(*, framed: bool = False) -> PreTrainedTokenizerFast:
    """Of WORDS; `framed` puts <s> and </s> around a text, as BERT's tokenizer does, which BLIP has."""
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    if framed:
        words.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=words, **special, cls_token="<s>", sep_token="</s>", extra_special_tokens={"image_token": "<image>"}
    )


def blip() -> tuple[Any, list[Any]]:
    text = {**TEXT, "encoder_hidden_size": 16, "projection_dim": 16, "sep_token_id": 2}
    config = BlipConfig(text_config=text, vision_config=VISION, projection_dim=16)
    return BlipForConditionalGeneration(config), [BlipProcessor(BlipImageProcessorPil(size=SIZE), tokenizer(framed=True))]


def git() -> tuple[Any, list[Any]]:
    config = GitConfig(vision_config=VISION, **TEXT)
    return GitForCausalLM(config), [GitProcessor(CLIPImageProcessorPil(size=SIZE, crop_size=SIZE), tokenizer())]


def vit_gpt2() -> tuple[Any, list[Any]]:
    text = GPT2Config(vocab_size=len(WORDS), n_positions=64, n_embd=16, n_layer=1, n_head=2, **IDS)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**VISION), text)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    return VisionEncoderDecoderModel(config), [ViTImageProcessorPil(size=SIZE), tokenizer()]


def llava() -> tuple[Any, list[Any]]:
    vision, text = CLIPVisionConfig(**VISION, projection_dim=16), LlamaConfig(**TEXT)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=4)
    part = "{% if part.type == 'image' %}<image> {% else %}{{ part.text }}{% endif %}"
    template = "USER {% for part in messages[0].content %}" + part + "{% endfor %} ASSISTANT"
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size=SIZE, crop_size=SIZE),
        tokenizer(),
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    return LlavaForConditionalGeneration(config), [processor]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for make in (blip, git, vit_gpt2, llava):
        torch.manual_seed(0)
        model, processors = make()
        for part in (model, *processors):
            part.save_pretrained(folder / make.__name__)
    return folder


KINDS = pytest.mark.parametrize("kind", ["blip", "git", "vit_gpt2", "llava"])


@KINDS
def test_every_family_captions_photos_and_names_broken_ones(kind: str, models: Path, shapes: Path) -> None:
    captioner = open_captioner(f"hf:{models / kind}")
    photos = [*sorted((shapes / "images").iterdir())[:3], Path("none.jpg")]
    options = captioner.options(beam_size=3, num_captions=2, max_length=5)
    records = list(captioner.records(photos, options, batch_size=2))
    assert [record.path for record in records] == [str(photo) for photo in photos]
    assert [record.error_code for record in records] == [None, None, None, "not-found"]
    for record in records[:3]:
        assert 1 <= len(record.captions) <= 2  # one without words is none
        assert record.captions[0].score >= record.captions[-1].score
        assert all(0 < len(caption.text.split()) <= 5 for caption in record.captions)
        assert record.model == f"hf:{models / kind}"
        assert (record.width, record.height) == (64, 64)


@KINDS
def test_samples_follow_from_the_seed_and_greedy_needs_none(kind: str, models: Path, shapes: Path) -> None:
    captioner = open_captioner(f"hf:{models / kind}")
    photo = [next((shapes / "images").iterdir())]

    def texts(**options: Any) -> list[str]:
        options = captioner.options(sample=True, num_captions=4, max_length=8, **options)
        [record] = captioner.records(photo, options)
        return [caption.text for caption in record.captions]

    assert texts(seed=1) == texts(seed=1)
    assert texts(seed=1) != texts(seed=2)


def test_a_prompt_is_asked_or_continued(models: Path, shapes: Path) -> None:
    photo = [next((shapes / "images").iterdir())]
    blip = open_captioner(f"hf:{models / 'blip'}", prompt="the dog")
    [record] = blip.records(photo, blip.options(max_length=4))
    assert str(record.caption).startswith("the dog")
    for prompt in (None, "a cat on the grass"):
        llava = open_captioner(f"hf:{models / 'llava'}", prompt=prompt)
        [record] = llava.records(photo, llava.options(max_length=4))
        assert len(str(record.caption).split()) <= 4  # without the question


def test_what_a_model_lacks_is_an_error_before_the_work(models: Path, tmp_path: Path) -> None:
    captioner = open_captioner(f"hf:{models / 'git'}")
    with pytest.raises(OptionError, match="style is no option of hf:"):
        captioner.options(style="coco")
    with pytest.raises(OptionError, match="beam_size is 0"):
        captioner.options(beam_size=0)
    with pytest.raises(OptionError, match="dtype is 'float17'"):
        open_captioner(f"hf:{models / 'git'}", dtype="float17")
    with pytest.raises(OptionError, match="requests is for models of openai:, and this is a hf"):
        open_captioner(f"hf:{models / 'git'}", requests=3)
    with pytest.raises(OptionError, match="prompt is for models of hf: and openai:, and this is a bundle"):
        open_captioner(prompt="a photo of")
    with pytest.raises(WeightsError, match="cannot be loaded as an image-to-text model"):
        open_captioner(f"hf:{tmp_path}")


def test_the_commands_take_a_transformers_model(models: Path, shapes: Path, tmp_path: Path) -> None:
    model = f"hf:{models / 'blip'}"
    photos = [str(photo) for photo in sorted((shapes / "images").iterdir())[:2]]
    done = CliRunner().invoke(cli, ["caption", *photos, "--model", model, "--max-length", "5", "--format", "jsonl"])
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == photos
    done = CliRunner().invoke(
        cli, ["evaluate", "--data", str(shapes), "--model", model, "--max-length", "5", "--json", str(tmp_path / "scores.json")]
    )
    assert done.exit_code == 0, done.output
    assert "CIDEr" in json.loads((tmp_path / "scores.json").read_text())["scores"]
    done = CliRunner().invoke(cli, ["explain", photos[0], "--model", model, "--output", str(tmp_path / "x.png")])
    assert done.exit_code != 0
    assert "hf:" in str(done.exception)


@KINDS
def test_the_service_runs_every_family(kind: str, models: Path, shapes: Path) -> None:
    photo = next((shapes / "images").iterdir()).read_bytes()
    with serving(open_captioner(f"hf:{models / kind}")) as served, httpx.Client(base_url=served.url, timeout=SOON) as client:
        files = [("image", ("a.jpg", photo)), ("image", ("b.jpg", photo[:200])), ("image", ("c.jpg", photo))]
        answer = client.post("/v1/captions?num_captions=2&max_length=4", files=files).json()
        first, broken, last = answer["results"]
        assert answer["model"] == first["model"] == f"hf:{kind}"  # without its folder
        assert first["caption"]
        assert first["captions"] == last["captions"]
        assert (first["width"], first["height"], first["path"]) == (64, 64, "a.jpg")
        assert broken["error"]["code"] == "truncated"
        for query, message in (
            ("attention=true", "gives no attention maps"),
            ("style=coco", f"style is no option of hf:{kind};"),
        ):
            refused = client.post(f"/v1/captions?{query}", files=files[:1])
            assert refused.status_code == 422
            assert message in refused.json()["error"]["message"]
        lines = client.post("/v1/captions/stream?max_length=4", files=files).text.splitlines()
        assert [json.loads(line)["path"] for line in lines] == ["a.jpg", "b.jpg", "c.jpg"]
        card = client.get("/v1/model").json()
        assert card["name"] == f"hf:{kind}"
        assert card["limits"]["max_photos"] == 32
        assert "vocabulary" not in card


def test_captions_of_a_transformers_model_teach_a_small_one(models: Path, shapes: Path, tmp_path: Path) -> None:
    captions = tmp_path / "captions.jsonl"
    command = ["caption", str(shapes / "images"), "--model", f"hf:{models / 'llava'}", "--max-length", "6"]
    done = CliRunner().invoke(cli, [*command, "--output", str(captions)])
    assert done.exit_code == 0, done.output
    settings = ["--set", "training.epochs=1", "--set", "training.max_photos=8", "--set", f"encoder.cache={tmp_path / 'cache'}"]
    done = CliRunner().invoke(cli, ["train", "debug", "--data", str(captions), "--output", str(tmp_path / "run"), *settings])
    assert done.exit_code == 0, done.output
    words = set((tmp_path / "run" / "checkpoints" / "epoch-001" / "vocab.json").read_text().split('"'))
    taught = {word for line in captions.read_text().splitlines() for word in json.loads(line)["caption"].lower().split()}
    assert taught & {"dog", "cat", "grass"} <= words


def test_a_captioner_is_shared_by_threads_and_pickled_to_processes(models: Path, shapes: Path) -> None:
    captioner = open_captioner(f"hf:{models / 'git'}")
    photos = sorted((shapes / "images").iterdir())[:4]
    options = captioner.options(max_length=5)
    expected = [record.caption for record in captioner.records(photos, options)]
    with ThreadPoolExecutor(4) as pool:
        runs = pool.map(lambda _: [record.caption for record in captioner.records(photos, options, batch_size=2)], range(4))
        assert all(run == expected for run in runs)
    again = pickle.loads(pickle.dumps(captioner))
    assert again is not captioner
    assert [record.caption for record in again.records(photos, options)] == expected
