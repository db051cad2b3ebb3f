"""The interface that every captioner has, and the part that captioners other than bundles share: photos in, records out."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

from PIL import Image

from showtell.errors import CaptionError, ImageError, OptionError
from showtell.image import ImageSettings, PhotoSource, is_source, name_of, read_rgb
from showtell.runtime.pipeline import Sizes, stream
from showtell.types import Caption, ConfidenceOptions, DecodeOptions, Record, check_confidence, to_columns


class AnyCaptioner(Protocol):
    """What every captioner can do. `runtime.Captioner` is one."""

    @property
    def name(self) -> str:
        """The model's name, as records have it."""
        ...

    @property
    def styles(self) -> tuple[str, ...]:
        """The caption styles that the model knows."""
        ...

    @property
    def size(self) -> int | None:
        """Bytes of the model's files or weights; None where the model is on a server."""
        ...

    def options(self, **changes: Any) -> Any:
        """The captioner's search options with `changes` applied, for `records`. Raises OptionError."""
        ...

    def records(
        self,
        photos: Iterable[PhotoSource],
        options: Any = None,
        *,
        batch_size: int = 8,
        workers: int | None = None,
        confidence: ConfidenceOptions | None = None,
    ) -> Iterator[Record]:
        """One record a photo, in order; a photo without a caption gives a record with its error."""
        ...

    def columns(self, photos: Iterable[PhotoSource | None], **search: Any) -> dict[str, list[Any]]:
        """The captions of a column of photos as columns: caption, score, captions and error."""
        ...


@dataclass(frozen=True, slots=True)
class Generation:
    """Search options for a model that has defaults of its own: only those that were given."""

    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Read:
    """A photo that was read, upright in RGB, or its error; `size` is (width, height) as it was."""

    name: str
    image: Image.Image | None
    size: tuple[int, int] | None = None
    error: ImageError | None = None


class ForeignCaptioner(ABC):
    """A captioner that is no bundle: it reads photos as bundles do, and a model of another kind makes the captions.

    Subclasses set `supported`, the fields of DecodeOptions that they know, and `parallel`, batches at once, and implement
    `generate`, which several threads may call at once. A pickled captioner is opened again with the same arguments.
    """

    supported: ClassVar[frozenset[str]]
    parallel: int = 1
    styles: tuple[str, ...] = ()
    size: int | None = None
    _opened_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *arguments: Any, **named: Any) -> Self:
        """Keeps the arguments, which a pickled captioner is opened with again."""
        made = super().__new__(cls)
        made._opened_with = arguments, named
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_again, (type(self), *self._opened_with)

    def __init__(self, name: str, images: ImageSettings | None) -> None:
        self.name = name
        self.images = images or ImageSettings()

    @abstractmethod
    def generate(self, images: Sequence[Image.Image], given: Mapping[str, Any]) -> list[tuple[Caption, ...] | CaptionError]:
        """The captions of each image, best first, or the reason why it has none. `given` are search options by name."""

    def options(self, **changes: Any) -> Generation:
        """The given search options. Raises OptionError for a bad value and for an option that this kind of model lacks."""
        given = {key: value for key, value in changes.items() if value is not None}
        DecodeOptions().updated(**given)
        if lacking := sorted(set(given) - self.supported):
            raise OptionError(f"{lacking[0]} is no option of {self.name}; it has {', '.join(sorted(self.supported))}")
        return Generation(given)

    def records(
        self,
        photos: Iterable[PhotoSource],
        options: Generation | None = None,
        *,
        batch_size: int = 8,
        workers: int | None = None,
        confidence: ConfidenceOptions | None = None,
    ) -> Iterator[Record]:
        """One record a photo, in order; a photo without a caption gives a record with its error.

        These models give no confidence. Raises OptionError where `confidence` asks for labels or a least confidence.
        """
        check_confidence(self.name, confidence)
        if batch_size < 1 or (workers is not None and workers < 1):
            raise OptionError(f"batch_size is {batch_size} and workers {workers}; both must be at least 1")
        if is_source(photos) or not isinstance(photos, Iterable):
            raise OptionError(f"{name_of(photos)}: records takes several photos; pass a list, [photo]")
        given = (options or Generation()).given

        def caption(batches: Sequence[Sequence[Read]]) -> list[Record]:
            return [record for batch in batches for record in self._caption(batch, given)]

        sizes = Sizes(batch_size, 1, threads=self.parallel, workers=workers or 2)
        return self._records(stream(photos, self._read, lambda photos: photos, caption, sizes))

    def columns(self, photos: Iterable[PhotoSource | None], **search: Any) -> dict[str, list[Any]]:
        """The captions of a column of photos as columns; see runtime.Captioner.columns."""
        return to_columns(self.records((b"" if photo is None else photo for photo in photos), self.options(**search)))

    @staticmethod
    def _records(run: Generator[Record, None, None]) -> Iterator[Record]:
        with closing(run):
            yield from run

    def shrunk(self, image: Image.Image) -> Image.Image:
        """The image as it is held in memory; subclasses may make it smaller."""
        return image

    def _read(self, source: PhotoSource) -> Read:
        name = name_of(source)
        try:
            image = read_rgb(source, name, self.images)
        except ImageError as error:
            return Read(name, None, error=error)
        return Read(name, self.shrunk(image), image.size)

    def _caption(self, photos: Sequence[Read], given: Mapping[str, Any]) -> Iterator[Record]:
        images = [photo.image for photo in photos if photo.image is not None]
        results = iter(self.generate(images, given) if images else ())
        for photo in photos:
            if photo.error is not None:
                yield Record(photo.name, "error", model=self.name, error_code=photo.error.code, error_message=str(photo.error))
                continue
            result = next(results)
            width, height = photo.size or (None, None)
            if isinstance(result, CaptionError):
                yield Record(
                    photo.name, "error", (), width, height, self.name, error_code="no-caption", error_message=str(result)
                )
            else:
                yield Record(photo.name, "ok", result, width, height, self.name)


def _open_again(kind: type[ForeignCaptioner], arguments: tuple[Any, ...], named: dict[str, Any]) -> ForeignCaptioner:
    return kind(*arguments, **named)
