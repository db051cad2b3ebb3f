"""Bundles on the Hugging Face Hub: fetched into its cache, pinned by revision; and pushed, with a model card."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from showtell.bundle import CARD, FILES, OPTIONAL, Bundle
from showtell.errors import FetchError, MissingExtraError, OptionError

try:
    import huggingface_hub as hub
except ImportError:
    raise MissingExtraError("hub", "the Hugging Face Hub") from None


def fetch(model: str) -> Path:
    """The folder of the bundle ORG/NAME or ORG/NAME@REVISION in the Hub's cache, downloaded as far as it is not there.

    Without a network, or with HF_HUB_OFFLINE=1, a bundle in the cache is used. Raises FetchError where it cannot be had.
    Whoever reads the bundle checks its files' SHA-256.
    """
    name, _, revision = model.partition("@")
    with _named_errors(model):
        return Path(hub.snapshot_download(name, revision=revision or None, allow_patterns=[*FILES, *OPTIONAL, "config.json"]))


def push(bundle: Bundle, model: str, *, private: bool = False, message: str = "Upload a showtell bundle") -> str:
    """Uploads a bundle as ORG/NAME, which is made if it does not exist, in one commit. Returns the commit's address.

    The token is the Hub's own ($HF_TOKEN, or of `hf auth login`). Raises FetchError where the Hub refuses it.
    """
    files = ["config.json", *(name for name in (*FILES, *OPTIONAL) if name in bundle.config.files)]
    operations = [hub.CommitOperationAdd(name, bundle.folder / name) for name in files]
    operations.append(hub.CommitOperationAdd("README.md", card(bundle).encode()))
    with _named_errors(model):
        api = hub.HfApi()
        api.create_repo(model, private=private, exist_ok=True)
        return str(api.create_commit(model, operations, commit_message=message).commit_url)


def card(bundle: Bundle) -> str:
    """The bundle's model card with the Hub's front matter: licence, task, data sets and dev scores."""
    config = bundle.config
    results = [
        hub.EvalResult(
            task_type="image-to-text",
            dataset_type=data,
            dataset_name=data,
            dataset_split="dev",
            metric_type=metric.lower(),
            metric_name=metric,
            metric_value=value,
        )
        for data, scores in config.scores.get("dev", {}).items()
        for metric, value in scores.items()
    ]
    about: dict[str, Any] = {
        "license": "mit" if config.licence.startswith("MIT") else "other",
        "library_name": "showtell",
        "pipeline_tag": "image-to-text",
        "tags": ["image-captioning", "onnx", "showtell"],
        "model_name": bundle.name,
        "eval_results": results or None,
    }
    path = bundle.folder / CARD
    text = path.read_text(encoding="utf-8") if path.exists() else f"# {bundle.name}\n\nA bundle of showtell.\n"
    return f"---\n{hub.ModelCardData(**about).to_yaml()}\n---\n\n{text}"


@contextlib.contextmanager
def _named_errors(model: str) -> Iterator[None]:
    """Turns the Hub's errors into one that names the model and a remedy."""
    try:
        yield
    except hub.errors.HFValidationError:
        raise OptionError(f"hub:{model}: give ORG/NAME or ORG/NAME@REVISION") from None
    except hub.errors.RepositoryNotFoundError:
        raise FetchError(f"hub:{model}: there is no such model, or it is private; check the name, or set $HF_TOKEN") from None
    except hub.errors.RevisionNotFoundError:
        raise FetchError(f"hub:{model}: the model has no such revision") from None
    except hub.errors.LocalEntryNotFoundError:
        raise FetchError(f"hub:{model}: not in the cache, and the Hub cannot be reached; try again with a network") from None
    except (hub.errors.HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise FetchError(f"hub:{model}: {reason or type(error).__name__}") from None
