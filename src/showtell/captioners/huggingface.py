"""transformers' captioners: image-to-text and image-text-to-text models, by name on the Hub or from a folder.

BLIP, GIT, ViT-GPT2, Florence-2, SmolVLM, Qwen-VL and others: whatever transformers has without remote code. Preprocessing,
prompts' templates and generation settings are the model's own; only the search options that are given replace them.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from PIL import Image

from showtell.captioners.base import ForeignCaptioner
from showtell.errors import CaptionError, MissingExtraError, OptionError, WeightsError
from showtell.image import ImageSettings
from showtell.types import Caption

try:
    import torch
    import transformers
except ImportError:
    raise MissingExtraError("hf", "transformers models") from None

PROMPT = "Describe this image in one short sentence."  # for models that follow instructions
_TASK_PROMPTS = {"florence2": "<CAPTION>"}  # for models that are asked by a token


class HuggingFaceCaptioner(ForeignCaptioner):
    """A transformers model that writes text about an image.

    `model` is ORG/NAME, ORG/NAME@REVISION or a folder; `device` is torch's, `dtype` one of torch's names such as bfloat16.
    `prompt` is the question for models that take one, and the beginning of the caption for BLIP and the like. Code that comes
    with a model runs only with `remote_code`. Raises WeightsError where the model cannot be loaded.
    """

    supported: ClassVar[frozenset[str]] = frozenset(
        {
            "beam_size",
            "num_captions",
            "max_length",
            "length_penalty",
            "no_repeat_ngram",
            "sample",
            "temperature",
            "top_p",
            "seed",
        }
    )

    def __init__(
        self,
        model: str,
        *,
        prompt: str | None = None,
        device: str = "cpu",
        dtype: str | None = None,
        threads: int = 0,
        remote_code: bool = False,
        images: ImageSettings | None = None,
    ) -> None:
        super().__init__(f"hf:{model}", images)
        name, _, revision = (model, "", "") if Path(model).is_dir() else model.partition("@")
        if dtype is not None and not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise OptionError(f"dtype is {dtype!r}; it must be one of torch's, such as bfloat16, float16 or float32")
        if threads:
            torch.set_num_threads(threads)
        common = {"revision": revision or None, "trust_remote_code": remote_code}
        transformers.logging.disable_progress_bar()
        with _named_errors(self.name):
            self._model = transformers.AutoModelForImageTextToText.from_pretrained(
                name, dtype=getattr(torch, dtype) if dtype else "auto", **common
            )
            self._model.to(device).eval()
            self._processor, self._tokenizer = _processors(name, common)
        kind = self._model.config.model_type
        self.size = sum(p.numel() * p.element_size() for p in self._model.parameters())
        self._chats = bool(getattr(self._processor, "chat_template", None))
        self._prompt = prompt or _TASK_PROMPTS.get(kind, PROMPT if self._chats else "")
        self._lock = Lock()  # random draws follow from torch's global seed

    def generate(self, images: Sequence[Image.Image], given: Mapping[str, Any]) -> list[tuple[Caption, ...] | CaptionError]:
        """See ForeignCaptioner. A caption's score is the mean log-probability of its tokens."""
        inputs = self._inputs(images)
        count = given.get("num_captions", 1)
        with self._lock, torch.inference_mode():
            if "seed" in given:
                torch.manual_seed(given["seed"])
            output = self._model.generate(
                **inputs, **_generation(given), return_dict_in_generate=True, output_scores=True, output_logits=False
            )
            scores = self._scores(output)
        tokens = output.sequences
        start = inputs.get("input_ids")
        if start is not None and not self._model.config.is_encoder_decoder and tokens.shape[1] > start.shape[1]:
            prefix = start.repeat_interleave(count, 0)
            if self._chats and torch.equal(tokens[:, : prefix.shape[1]], prefix):
                tokens = tokens[:, prefix.shape[1] :]  # the question is no part of the answer
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        captions = [Caption(" ".join(text.split()), score, ()) for text, score in zip(texts, scores, strict=True)]
        groups = [[c for c in captions[first : first + count] if c.text] for first in range(0, len(captions), count)]
        nothing = CaptionError("the model wrote no words")
        return [tuple(sorted(group, key=lambda caption: -caption.score)) or nothing for group in groups]

    def _inputs(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        if self._chats:
            content = [{"type": "image"}, {"type": "text", "text": self._prompt}]
            text = self._processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            inputs = self._processor(
                images=[[image] for image in images], text=[text] * len(images), return_tensors="pt", padding=True
            )
        elif self._prompt:
            inputs = self._processor(images=list(images), text=[self._prompt] * len(images), return_tensors="pt", padding=True)
        else:
            inputs = self._processor(images=list(images), return_tensors="pt")
        return dict(inputs.to(self._model.device, self._model.dtype))

    def _scores(self, output: Any) -> list[float]:
        if getattr(output, "sequences_scores", None) is not None:  # of a beam search, by its length penalty
            return [float(score) for score in output.sequences_scores]
        scores = self._model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
        real = scores.isfinite() & (scores < 0)  # padding after the end has 0, or minus infinity
        return [float(score) for score in scores.where(real, 0).sum(1) / real.sum(1).clamp(min=1)]


def _generation(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of transformers' `generate` for our search options."""
    names = {
        "beam_size": "num_beams",
        "num_captions": "num_return_sequences",
        "max_length": "max_new_tokens",
        "length_penalty": "length_penalty",
        "no_repeat_ngram": "no_repeat_ngram_size",
        "sample": "do_sample",
        "temperature": "temperature",
        "top_p": "top_p",
    }
    arguments = {names[key]: value for key, value in given.items() if key in names}
    if not given.get("sample") and given.get("num_captions", 1) > given.get("beam_size", 1):
        arguments["num_beams"] = given["num_captions"]
    return arguments


def _processors(name: str, common: Mapping[str, Any]) -> tuple[Any, Any]:
    """The model's processor of images (and text), and its tokenizer; older models have these apart."""
    processor = transformers.AutoProcessor.from_pretrained(name, **common)
    if tokenizer := getattr(processor, "tokenizer", None):
        tokenizer.padding_side = "left"  # generated tokens follow the prompt
        return processor, tokenizer
    return (
        transformers.AutoImageProcessor.from_pretrained(name, **common),
        transformers.AutoTokenizer.from_pretrained(name, **common),
    )


@contextlib.contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turns whatever transformers raises for a model that it cannot load into a WeightsError that names it."""
    try:
        yield
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{name}: cannot be loaded as an image-to-text model ({reason}); give ORG/NAME of a model on the Hub, "
            "or a folder that save_pretrained() wrote, with its processor"
        ) from None
