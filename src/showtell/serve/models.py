"""Captioners as the service runs them: bundles, whose photos go through the encoder together, and captioners of other kinds."""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from showtell.arrays import Array
from showtell.bundle import Bundle
from showtell.captioners.base import ForeignCaptioner, Generation
from showtell.errors import CaptionError, OptionError
from showtell.image import ImageSettings, Photo, read_photo, read_rgb
from showtell.types import AttentionMap, ConfidenceOptions, DecodeOptions, Description
from showtell.vocabulary import SPECIAL

_Key = TypeVar("_Key", bound=Hashable)

SIDE = 1024  # pixels a side, at most, of photos that wait for a captioner that is no bundle: 3 MB each


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request's search options, its options for doubtful captions, and whether it wants attention maps."""

    options: Any
    confidence: ConfidenceOptions = field(default_factory=ConfidenceOptions)
    attention: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A photo to be captioned: pixels uint8 (height, width, 3)."""

    pixels: Array
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Result:
    """A photo's description, and the attention maps of its best caption where the job wants them."""

    found: Description
    attention: tuple[AttentionMap, ...] | None = None


class Model(Protocol):
    """The part of a captioner that the service calls."""

    name: str
    styles: tuple[str, ...]
    attends: bool  # whether it can give attention maps
    parallel: int  # batches that it captions at once, each in a thread of its own
    has_confidence: bool  # whether it can tell how far to trust its captions

    def options(self, **given: Any) -> Any:
        """Its search options with the given ones. Raises OptionError for one that it does not take."""
        ...

    def read(self, data: bytes, name: str, limits: ImageSettings) -> Photo:
        """A photo's pixels as `caption` takes them. Raises ImageError."""
        ...

    def trials(self, count: int) -> list[Job]:
        """Grey photos to caption at the start, at most `count`, which take the model's memory and show its faults."""
        ...

    def caption(self, jobs: Sequence[Job]) -> list[Result | CaptionError]:
        """The captions of each photo, or why it has none. Raises ServerError where the model's server cannot be used."""
        ...

    def card(self) -> dict[str, Any]:
        """What /v1/model says of it."""
        ...


class BundleCaptioner(Protocol):
    """The part of `runtime.Captioner` that the service calls."""

    bundle: Bundle
    parallel: int

    @property
    def attends(self) -> bool:
        """Whether its decoder attends to parts of a photo."""
        ...

    def features(self, pixels: Array, *, threads: int) -> Array:
        """uint8 (B, size, size, 3) to grid features float32 (B, cells, channels)."""
        ...

    def describe(
        self, features: Array, options: DecodeOptions, confidence: ConfidenceOptions, *, threads: int
    ) -> list[Description]:
        """Captions of each photo, best first, and how far to trust them."""
        ...

    def attention_of(self, features: Array, found: Sequence[Description], style: str) -> list[tuple[AttentionMap, ...] | None]:
        """Attention maps of the best caption of each photo, searched for in that style; None where there is no caption."""
        ...


def served(captioner: BundleCaptioner | ForeignCaptioner) -> Model:
    """The captioner as the service runs it."""
    return ForeignModel(captioner) if isinstance(captioner, ForeignCaptioner) else BundleModel(captioner)


class BundleModel:
    """A bundle: one encoder batch, and those that are searched for alike are searched together, all on the caller's thread."""

    def __init__(self, captioner: BundleCaptioner) -> None:
        self._captioner = captioner
        self._bundle, self.parallel = captioner.bundle, captioner.parallel
        self.name, self.styles, self.attends = self._bundle.name, self._bundle.vocabulary.styles, captioner.attends
        self.has_confidence = self._bundle.confidence is not None

    def options(self, **given: Any) -> DecodeOptions:
        """See Model."""
        return self._bundle.options(**given)

    def read(self, data: bytes, name: str, limits: ImageSettings) -> Photo:
        """See Model."""
        return read_photo(data, self._bundle.preprocessing, name, limits)

    def trials(self, count: int) -> list[Job]:
        """See Model. A full batch."""
        size = self._bundle.preprocessing.size
        return [Job(np.full((size, size, 3), 128, np.uint8), Wanted(self._bundle.search))] * count

    def caption(self, jobs: Sequence[Job]) -> list[Result | CaptionError]:
        """See Model."""
        features = self._captioner.features(np.stack([job.pixels for job in jobs]), threads=1)
        results: dict[int, Result] = {}
        for wanted, rows in _alike([job.wanted for job in jobs]).items():
            part = features if len(rows) == len(jobs) else features[rows]
            found = self._captioner.describe(part, wanted.options, wanted.confidence, threads=1)
            maps: list[tuple[AttentionMap, ...] | None] = [None] * len(rows)
            if wanted.attention:
                maps = self._captioner.attention_of(part, found, wanted.options.style)
            results.update(zip(rows, map(Result, found, maps), strict=True))
        return [results[row] for row in range(len(jobs))]

    def card(self) -> dict[str, Any]:
        """See Model."""
        bundle, config = self._bundle, self._bundle.config
        return {
            "name": bundle.name,
            "licence": config.licence or None,
            "data": config.data or None,
            "quantization": config.quantization,
            "vocabulary": len(bundle.vocabulary) - len(SPECIAL) - len(bundle.vocabulary.styles),
            "scores": config.scores.get("dev", {}),
            "architecture": {"encoder": config.encoder, "decoder": config.decoder},
            "preprocessing": bundle.preprocessing.to_json(),
            "search": asdict(bundle.search),
        }


class ForeignModel:
    """A captioner that is no bundle. It gives no attention, and takes the search options that its kind knows."""

    attends = has_confidence = False
    parallel = 1  # it shares a batch out by itself

    def __init__(self, captioner: ForeignCaptioner) -> None:
        self._captioner = captioner
        self.name, self.styles = _without_place(captioner.name), captioner.styles

    def options(self, **given: Any) -> Generation:
        """See Model."""
        try:
            return self._captioner.options(**given)
        except OptionError as error:
            raise OptionError(str(error).replace(self._captioner.name, self.name)) from None

    def read(self, data: bytes, name: str, limits: ImageSettings) -> Photo:
        """See Model. At most SIDE pixels a side."""
        image = read_rgb(data, name, limits)
        size, mode = image.size, image.mode
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        return Photo(np.asarray(image), *size, mode)

    def trials(self, count: int) -> list[Job]:
        """See Model. One photo for a model on this machine; none for a server, which may bill it."""
        here = self._captioner.size is not None
        return [Job(np.full((224, 224, 3), 128, np.uint8), Wanted(Generation()))] * here

    def caption(self, jobs: Sequence[Job]) -> list[Result | CaptionError]:
        """See Model."""
        results: dict[int, Result | CaptionError] = {}
        for given, rows in _alike([tuple(sorted(job.wanted.options.given.items())) for job in jobs]).items():
            found = self._captioner.generate([Image.fromarray(jobs[row].pixels) for row in rows], dict(given))
            for row, captions in zip(rows, found, strict=True):
                results[row] = Result(Description(captions)) if isinstance(captions, tuple) else captions
        return [results[row] for row in range(len(jobs))]

    def card(self) -> dict[str, Any]:
        """See Model."""
        return {"name": self.name, "scores": {}, "architecture": {}, "preprocessing": {}, "search": {}}


def _without_place(name: str) -> str:
    """A captioner's name for clients of the service, without the folder of hf:FOLDER and the address of openai:ADDRESS."""
    kind, _, model = name.partition(":")
    if kind == "openai":
        return f"{kind}:{model.rpartition('#')[2]}"
    return f"{kind}:{Path(model).resolve().name}" if Path(model).is_dir() else name


def _alike(keys: Sequence[_Key]) -> dict[_Key, list[int]]:
    """The rows of each key."""
    rows: dict[_Key, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return rows
