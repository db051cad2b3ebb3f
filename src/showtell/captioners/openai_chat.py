"""Captioners behind a server that speaks OpenAI's chat API with images: Ollama, llama.cpp, vLLM, LM Studio and hosted ones.

Photos leave this machine only for a model that is named `openai:...`. They are sent as JPEGs of at most 1,024 pixels a side.
"""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, ClassVar

from PIL import Image

from showtell.captioners.base import ForeignCaptioner
from showtell.errors import CaptionError, MissingExtraError, OptionError, ServerError
from showtell.image import ImageSettings
from showtell.types import Caption

try:
    import openai
except ImportError:
    raise MissingExtraError("openai", "captioners behind a server") from None

PROMPT = "Describe this image in one short sentence. Answer with the sentence alone."
SIDE = 1024  # pixels
MAX_TOKENS = 100
# Statuses that concern one photo or its caption; any other ends the run.
_OF_ONE_PHOTO = {400, 413, 422}


class OpenAICaptioner(ForeignCaptioner):
    """A model of a server: `address` is BASE_URL#MODEL, such as http://localhost:11434/v1#llava.

    The key is $OPENAI_API_KEY, if the server wants one. `requests` photos are asked for at once. A request that fails is
    repeated up to `retries` times, with growing pauses and as the server's Retry-After says. `usage` counts tokens. Raises
    ServerError where the server cannot be reached, refuses the key or knows no such model.
    """

    supported: ClassVar[frozenset[str]] = frozenset({"num_captions", "max_length", "sample", "temperature", "top_p", "seed"})

    def __init__(
        self,
        address: str,
        *,
        prompt: str | None = None,
        requests: int = 4,
        retries: int = 5,
        timeout: float = 120.0,
        images: ImageSettings | None = None,
    ) -> None:
        base, _, model = address.partition("#")
        if not base.startswith(("http://", "https://")) or not model:
            raise OptionError(f"openai:{address}: give BASE_URL#MODEL, such as openai:http://localhost:11434/v1#llava")
        super().__init__(f"openai:{address}", images)
        self.parallel = requests
        self.usage = {"prompt_tokens": 0, "completion_tokens": 0}
        self._model, self._prompt, self._base = model, prompt or PROMPT, base
        key = os.environ.get("OPENAI_API_KEY") or "none"
        self._client = openai.OpenAI(base_url=base, api_key=key, max_retries=retries, timeout=timeout)
        self._lock = Lock()

    def shrunk(self, image: Image.Image) -> Image.Image:
        """At most SIDE pixels a side."""
        if max(image.size) <= SIDE:
            return image
        smaller = image.copy()
        smaller.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        return smaller

    def generate(self, images: Sequence[Image.Image], given: Mapping[str, Any]) -> list[tuple[Caption, ...] | CaptionError]:
        """See ForeignCaptioner. Chat servers give no scores that compare: a caption's score is 0."""
        pool = ThreadPoolExecutor(self.parallel, "showtell-request")
        try:
            return list(pool.map(lambda image: self._ask(image, given), images))
        finally:
            pool.shutdown(cancel_futures=True)  # where one fails, those that wait are not sent

    def _ask(self, image: Image.Image, given: Mapping[str, Any]) -> tuple[Caption, ...] | CaptionError:
        photo = io.BytesIO()
        image.save(photo, "JPEG", quality=90)
        url = "data:image/jpeg;base64," + base64.b64encode(photo.getvalue()).decode()
        content: Any = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": self._prompt}]
        names = {"num_captions": "n", "temperature": "temperature", "top_p": "top_p", "seed": "seed"}
        options: dict[str, Any] = {names[key]: value for key, value in given.items() if key in names}
        options.setdefault("temperature", 1.0 if given.get("sample") else 0.0)
        # Our lengths count words, which are a token and a half each.
        options["max_tokens"] = 2 * given["max_length"] if "max_length" in given else MAX_TOKENS
        try:
            answer = self._client.chat.completions.create(
                model=self._model, messages=[{"role": "user", "content": content}], **options
            )
            texts = [choice.message.content for choice in answer.choices or ()]
        except openai.APIStatusError as error:
            if error.status_code in _OF_ONE_PHOTO:
                return CaptionError(f"the server refuses the photo ({error.status_code}: {_reason(error)})")
            raise ServerError(
                f"{self.name}: status {error.status_code}: {_reason(error)}; check address, model and $OPENAI_API_KEY"
            ) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise ServerError(f"{self.name}: {self._base} does not answer ({cause}); is it running?") from None
        except (openai.OpenAIError, AttributeError, TypeError, ValueError) as error:
            raise ServerError(f"{self.name}: the answer is not one of OpenAI's chat API ({error}); check the address") from None
        with self._lock:
            for key in self.usage:
                self.usage[key] += getattr(answer.usage, key, 0) or 0
        captions = tuple(Caption(" ".join(text.split()), 0.0, ()) for text in texts if isinstance(text, str) and text.strip())
        return captions or CaptionError("the server's answer has no text")


def _reason(error: openai.APIStatusError) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(message or error.message).split())[:200]
