"""The captioner that people use: photos in, captions out, in batches, one bad photo never ending the rest."""

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from showtell.bundle import Bundle
from showtell.decoding import Array, Hypothesis, search
from showtell.errors import ImageError, OptionError
from showtell.image import ImageSettings, PhotoSource, name_of, read_photo
from showtell.runtime.attention import attention_maps
from showtell.runtime.cpu import available_cpus
from showtell.runtime.models import Device, OnnxEncoder, OnnxStepModel
from showtell.runtime.pipeline import Sizes, stream
from showtell.text import detokenize
from showtell.types import Caption, DecodeOptions, Record
from showtell.vocab import SEARCH_TOKENS

T = TypeVar("T")

BATCH_SIZE = 8  # the int8 encoder is no faster per photo with more
# Photos and hypotheses that one search follows: more make its products no faster and its memory larger.
SEARCHED_PHOTOS, SEARCHED_HYPOTHESES = 16, 160
MOST_BATCHES = 8  # encoded at once, about 100 MB each; further threads help with one batch


@dataclass(frozen=True, slots=True)
class _Photo:
    """A photo on its way through: decoded, or the error that it met."""

    name: str
    pixels: Array | None  # uint8 (size, size, 3)
    width: int | None = None
    height: int | None = None
    error: ImageError | None = None


@dataclass(frozen=True, slots=True)
class _Batch:
    """Photos without their pixels, and grid features float32 (those that were read, 49, 2048), None where none was."""

    photos: Sequence[_Photo]
    features: Array | None


class Captioner:
    """A loaded bundle.

    Call it with a path, encoded bytes, an open file, a PIL image or an array for a `Caption`, or with a list of such for a
    list. `records` streams any number of photos and reports broken ones instead of raising. `images` limits what is read.
    `threads` is how many processors the networks keep busy, 0 for as many as the machine or the container has. All methods may
    be called by several threads at once.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int = 0, device: Device = "cpu", images: ImageSettings | None = None
    ) -> None:
        if threads < 0:
            raise OptionError(f"threads is {threads}; it must be 0 (as many as there are cores) or more")
        threads = threads or available_cpus()
        self._batches = min(threads, MOST_BATCHES)
        self.bundle = bundle
        self.images = images or ImageSettings()
        self.encoder = OnnxEncoder(bundle.folder, threads // self._batches, device)
        self.decoder = OnnxStepModel(bundle.folder, threads // self._batches, device)

    @overload
    def __call__(self, photo: PhotoSource, **options: Any) -> Caption: ...

    @overload
    def __call__(self, photo: Sequence[PhotoSource], **options: Any) -> list[Caption]: ...

    def __call__(self, photo: Any, **options: Any) -> Caption | list[Caption]:
        """Captions one photo, or a list of photos; `options` are fields of DecodeOptions, such as `beam_size=5`.

        With `num_captions=n` the further captions are in `Caption.alternatives`. Raises ImageError for the first photo that
        cannot be read.
        """
        many = isinstance(photo, (list, tuple))
        captions = []
        with closing(self._run(photo if many else [photo], self.options(**options), BATCH_SIZE, None)) as found:
            for item, record in found:
                if item.error is not None:
                    raise item.error
                best, *others = record.captions
                captions.append(Caption(best.text, best.score, best.tokens, tuple(others)))
        return captions if many else captions[0]

    def options(self, **changes: Any) -> DecodeOptions:
        """The bundle's search options with `changes` applied. Raises OptionError for a value that is not allowed."""
        return self.bundle.search.updated(**changes)

    def records(
        self,
        photos: Iterable[PhotoSource],
        options: DecodeOptions | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
    ) -> Iterator[Record]:
        """One record a photo, in order; a photo that cannot be read gives a record with its error.

        `workers` threads decode photos ahead of the networks, as many as those use unless told otherwise. At most a few batches
        are in memory, however many photos come.
        """
        if batch_size < 1 or (workers is not None and workers < 1):
            raise OptionError(f"batch_size is {batch_size} and workers {workers}; both must be at least 1")
        with closing(self._run(photos, options or self.bundle.search, batch_size, workers)) as found:
            for _, record in found:
                yield record

    def features(self, pixels: Array) -> Array:
        """Grid features float32 (B, 49, 2048) of resized photos, uint8 (B, size, size, 3)."""
        return np.concatenate(self._share_out(self._features, pixels))

    def search(self, features: Array, options: DecodeOptions) -> list[tuple[Caption, ...]]:
        """The captions of each photo, best first, from grid features (B, 49, 2048)."""
        return list(itertools.chain(*self._share_out(lambda part: self._search(part, options), features)))

    def attention(self, features: Array, captions: Sequence[Caption]) -> list[Array]:
        """Where the model looked for each token of one caption of each photo: float32 (tokens, 7, 7), each map summing to 1.

        features (B, 49, 2048), as the captions were found from. Raises OptionError where the model does not attend.
        """
        ids = [self.bundle.vocabulary.encode(caption.tokens) for caption in captions]
        return attention_maps(self.decoder, features, ids, SEARCH_TOKENS.begin)

    def _share_out(self, work: Callable[[Array], T], photos: Array) -> list[T]:
        """What `work` makes of parts of the photos, one for each thread; each network runs on one thread."""
        parts = np.array_split(photos, max(1, min(self._batches, len(photos))))
        if len(parts) == 1:
            return [work(photos)]
        with ThreadPoolExecutor(len(parts), "showtell-model") as pool:
            return list(pool.map(work, parts))

    def _features(self, pixels: Array) -> Array:
        return self.encoder(self.bundle.preprocessing.normalize(pixels))

    def _search(self, features: Array, options: DecodeOptions) -> list[tuple[Caption, ...]]:
        found = search(self.decoder, features, self.bundle.vocabulary.search_tokens(), options)
        return [tuple(self._caption(hypothesis) for hypothesis in hypotheses) for hypotheses in found]

    def _caption(self, hypothesis: Hypothesis) -> Caption:
        tokens = self.bundle.vocabulary.decode(hypothesis.tokens)
        return Caption(detokenize(tokens), hypothesis.score, tokens)

    def _run(
        self, photos: Iterable[PhotoSource], options: DecodeOptions, batch_size: int, workers: int | None
    ) -> Generator[tuple[_Photo, Record], None, None]:
        width = options.num_captions if options.sample else options.beam_size
        searched = max(1, min(SEARCHED_PHOTOS, SEARCHED_HYPOTHESES // width) // batch_size)
        sizes = Sizes(batch_size, searched, threads=self._batches, workers=workers or self._batches)
        return stream(photos, self._read, self._encode, lambda batches: self._caption_batches(batches, options), sizes)

    def _encode(self, photos: Sequence[_Photo]) -> _Batch:
        pixels = [photo.pixels for photo in photos if photo.pixels is not None]
        features = self._features(np.stack(pixels)) if pixels else None
        return _Batch([replace(photo, pixels=None) for photo in photos], features)

    def _caption_batches(self, batches: Sequence[_Batch], options: DecodeOptions) -> list[tuple[_Photo, Record]]:
        model = self.bundle.name
        features = [batch.features for batch in batches if batch.features is not None]
        captions = iter(self._search(np.concatenate(features), options) if features else ())
        return [
            (photo, Record(photo.name, "ok", next(captions), photo.width, photo.height, model))
            if photo.error is None
            else (photo, Record(photo.name, "error", model=model, error_code=photo.error.code, error_message=str(photo.error)))
            for batch in batches
            for photo in batch.photos
        ]

    def _read(self, source: PhotoSource) -> _Photo:
        name = name_of(source)
        try:
            photo = read_photo(source, self.bundle.preprocessing, name, self.images)
        except ImageError as error:
            return _Photo(name, None, error=error)
        return _Photo(name, photo.pixels, photo.width, photo.height)


def load(
    model: str | Path | None = None, *, threads: int = 0, device: Device = "cpu", images: ImageSettings | None = None
) -> Captioner:
    """A captioner: the embedded model, or the bundle of that name or folder.

    `threads` is how many processors the networks may use, 0 for as many as the machine or the container has; `images` limits
    what is read. Raises BundleError where the bundle is missing, altered or of another format.
    """
    return Captioner(Bundle.find(model), threads=threads, device=device, images=images)
