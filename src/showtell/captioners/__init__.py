"""Captioners of every kind behind one interface: bundles, transformers models, servers that speak OpenAI's chat API.

showtell caption photo.jpg --model NAME_OR_FOLDER             a bundle; by default the embedded one
showtell caption photo.jpg --model hf:ORG/NAME                a transformers model, by name or folder
showtell caption photo.jpg --model openai:BASE_URL#MODEL      a server, such as Ollama, llama.cpp or vLLM
"""

from pathlib import Path
from typing import Any

from showtell.captioners.base import AnyCaptioner
from showtell.errors import OptionError
from showtell.image import ImageSettings

__all__ = ["AnyCaptioner", "open_captioner"]

# Options of load() that only some kinds have.
_OWN: dict[str, tuple[str, ...]] = {"hub": (), "hf": ("prompt", "dtype", "remote_code"), "openai": ("prompt", "requests")}


def kind_of(model: str | Path | None) -> str:
    """The kind of captioner that `model` names: "hub", "hf", "openai" or "bundle"."""
    prefix, colon, _ = str(model or "").partition(":")
    return prefix if colon and prefix in _OWN else "bundle"


def open_captioner(
    model: str | Path | None = None,
    *,
    threads: int = 0,
    device: str = "cpu",
    images: ImageSettings | None = None,
    **own: Any,
) -> AnyCaptioner:
    """The captioner that `model` names; see the top of this module.

    `threads` and `device` are for models that run on this machine. `own` are options of a kind: `prompt` (hf, openai), `dtype`
    and `remote_code` (hf), `requests` at once (openai). Raises OptionError for an option of another kind, and BundleError,
    WeightsError or MissingExtraError where the model cannot be loaded.
    """
    kind = kind_of(model)
    given = {key: value for key, value in own.items() if value not in (None, False)}
    if foreign := sorted(set(given) - set(_OWN.get(kind, ()))):
        kinds = [name for name, options in _OWN.items() if foreign[0] in options]
        raise OptionError(f"{foreign[0]} is for models of {' and '.join(f'{name}:' for name in kinds)}, and this is a {kind}")
    if kind == "hf":
        from showtell.captioners.huggingface import HuggingFaceCaptioner

        return HuggingFaceCaptioner(str(model).removeprefix("hf:"), threads=threads, device=device, images=images, **given)
    if kind == "openai":
        from showtell.captioners.openai_chat import OpenAICaptioner

        return OpenAICaptioner(str(model).removeprefix("openai:"), images=images, **given)
    from showtell.runtime import load

    if kind == "hub":
        from showtell.captioners.hub import fetch

        model = fetch(str(model).removeprefix("hub:"))
    if device not in ("cpu", "cuda"):
        raise OptionError(f"device is {device!r}; a bundle runs on cpu or cuda")
    captioner: Any = load(model, threads=threads, device=device, images=images)  # type: ignore[arg-type]  # checked above
    return captioner  # type: ignore[no-any-return]  # its keyword arguments are named, those of the protocol are any
