"""The captioner that people use: photos in, captions out, in batches, one bad photo never ending the rest."""

import itertools
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, TypeVar, Unpack, overload

import numpy as np

from showtell.arrays import Array
from showtell.bundle import MODELS, Bundle
from showtell.confidence import Assessment, describe
from showtell.decoding import Constraints, Hypothesis, Step, StepModel, search
from showtell.errors import ImageError, OptionError, ShowtellWarning
from showtell.image import ImageSettings, PhotoSource, is_source, name_of, read_photo
from showtell.runtime.attention import attention_maps
from showtell.runtime.cpu import available_cpus
from showtell.runtime.fusion import Fused, without_bonus
from showtell.runtime.pipeline import Sizes, stream
from showtell.runtime.sessions import Device, OnnxEncoder, OnnxStepModel
from showtell.text import pieces
from showtell.types import (
    AttentionMap,
    Caption,
    ConfidenceOptions,
    DecodeOptions,
    Description,
    Record,
    SearchOptions,
    check_confidence,
    to_columns,
)

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
    """Photos without pixels, and grid features float32 (readable photos, cells, channels); None where all are unreadable."""

    photos: Sequence[_Photo]
    features: Array | None


@dataclass(frozen=True, slots=True)
class _Stoppable:
    """A decoder that raises CancelledError at its next step once `stopped` is set: its caller has gone."""

    model: StepModel
    stopped: Event

    def start(self, features: Array) -> Any:
        return self.model.start(features)

    def step(self, tokens: Array, state: Any) -> Step:
        if self.stopped.is_set():
            raise CancelledError
        return self.model.step(tokens, state)

    def reorder(self, state: Any, photos: Array, hypotheses: Array) -> Any:
        return self.model.reorder(state, photos, hypotheses)


class Captioner:
    """A loaded bundle.

    Call it with a path, encoded bytes, an open file, a PIL image or an RGB array for a `Caption`, or with a list of such for a
    list. `records` streams any number of photos and reports broken ones instead of raising. `images` limits what is read.
    `threads` is the number of processors for the networks, 0 for all that the machine or container has. A higher number is
    lowered to that, with a ShowtellWarning. All methods may be called by several threads at once; `parallel` batches at once
    keep the processors busy. A pickled captioner is loaded from its bundle again, which must be there.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int = 0, device: Device = "cpu", images: ImageSettings | None = None
    ) -> None:
        if threads < 0:
            raise OptionError(f"threads is {threads}; it must be 0 (all processors) or more")
        self._loaded_with = threads, device, images
        processors = available_cpus()
        if threads > processors:
            may = f"{processors} processor{'s' * (processors > 1)} may be used"
            message = f"threads is {threads}, and {may} here: more threads would wait for each other, so {processors} work"
            warnings.warn(message, ShowtellWarning, stacklevel=3)
        threads = min(threads or processors, processors)
        self.parallel = min(threads, MOST_BATCHES)
        self.bundle = bundle
        self.images = images or ImageSettings()
        self.confidence = bundle.confidence
        self.encoder = OnnxEncoder(bundle.folder, threads // self.parallel, device)
        self.decoder = OnnxStepModel(bundle.folder, threads // self.parallel, device)

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.bundle.name

    @property
    def styles(self) -> tuple[str, ...]:
        """The caption styles of the bundle's vocabulary."""
        return self.bundle.vocabulary.styles

    @property
    def attends(self) -> bool:
        """Whether the decoder attends to parts of a photo, so that there are attention maps."""
        return self.decoder.attends

    @property
    def size(self) -> int:
        """Bytes of the bundle's files."""
        return sum(file.stat().st_size for file in self.bundle.folder.iterdir() if file.is_file())

    def __reduce__(self) -> tuple[Callable[..., "Captioner"], tuple[Any, ...]]:
        folder = self.bundle.folder.resolve()
        model = folder.name if folder.parent == MODELS.resolve() else folder  # installed elsewhere on another machine
        return _load_again, (model, *self._loaded_with)

    @overload  # a string is a sequence of strings, too
    def __call__(  # type: ignore[overload-overlap]
        self, photo: PhotoSource, **options: Unpack[SearchOptions]
    ) -> Caption: ...

    @overload
    def __call__(self, photo: Sequence[PhotoSource], **options: Unpack[SearchOptions]) -> list[Caption]: ...

    def __call__(self, photo: Any, **options: Unpack[SearchOptions]) -> Caption | list[Caption]:
        """Captions one photo, or a list of photos; `options` are fields of DecodeOptions, such as `beam_size=5`.

        With `num_captions=n` the further captions are in `Caption.alternatives`. Raises ImageError for the first photo that
        cannot be read.
        """
        many = isinstance(photo, (list, tuple))
        if not many and not is_source(photo) and isinstance(photo, Iterable):
            raise OptionError(f"{name_of(photo)}: holds several photos; pass a list, or stream them with records()")
        captions = []
        photos = photo if many else [photo]
        with closing(self._run(photos, self.options(**options), BATCH_SIZE, None, ConfidenceOptions())) as run:
            for source, (item, record) in zip(photos, run, strict=True):
                if item.error is not None:
                    raise item.error
                best, *others = record.captions
                shown = None if hasattr(source, "read") else source  # an open file has been read
                captions.append(replace(best, alternatives=tuple(others), photo=shown))
        return captions if many else captions[0]

    def options(self, **changes: Unpack[SearchOptions]) -> DecodeOptions:
        """The bundle's search options with `changes` applied. Raises OptionError for a value that is not allowed."""
        return self.bundle.options(**changes)

    def records(
        self,
        photos: Iterable[PhotoSource],
        options: DecodeOptions | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
        attention: bool = False,
        confidence: ConfidenceOptions | None = None,
        **search: Unpack[SearchOptions],
    ) -> Iterator[Record]:
        """One record a photo, in order; a photo that cannot be read gives a record with its error.

        `search` are fields of DecodeOptions, such as `beam_size=5`; they change `options`, by default the bundle's.
        `confidence` has the options for doubtful captions and labels. With `attention`, records have the attention maps of the
        best caption.

        Photos of a fast source go through the networks in batches; a photo of a slow source is captioned at once. `workers`
        threads decode photos ahead of the networks, by default as many as the networks use. At most a few batches are in
        memory, whatever the number of photos.
        """
        if batch_size < 1 or (workers is not None and workers < 1):
            raise OptionError(f"batch_size is {batch_size} and workers {workers}; both must be at least 1")
        if is_source(photos) or not isinstance(photos, Iterable):
            raise OptionError(f"{name_of(photos)}: records takes several photos; pass a list, [photo]")
        if self.confidence is None:
            check_confidence(self.name, confidence)
        options = (options or self.bundle.search).updated(**search)
        return self._records(self._run(photos, options, batch_size, workers, confidence or ConfidenceOptions(), attention))

    def columns(self, photos: Iterable[PhotoSource | None], **search: Unpack[SearchOptions]) -> dict[str, list[Any]]:
        """The captions of a column of photos as columns: caption, score, captions and error, each with a row for each photo.

        >>> dataset.map(lambda batch: captioner.columns(batch["image"]), batched=True)  # of datasets
        >>> frame.join(pandas.DataFrame(captioner.columns(frame["path"]), frame.index))

        A photo that is None or cannot be read has no caption, and its row names the error.
        """
        return to_columns(self.records((b"" if photo is None else photo for photo in photos), **search))

    def _records(self, run: Generator[tuple[_Photo, Record], None, None]) -> Iterator[Record]:
        with closing(run) as found:
            for _, record in found:
                yield record

    def features(self, pixels: Array, *, threads: int = 0) -> Array:
        """Grid features float32 (B, cells, channels) of resized photos, uint8 (B, size, size, 3).

        `threads` share the photos, 0 for all that the captioner has; a caller with threads of its own gives 1.
        """
        return np.concatenate(self._share_out(self._features, pixels, threads))

    def search(
        self, features: Array, options: DecodeOptions, constraints: Sequence[Constraints] = ()
    ) -> list[tuple[Caption, ...]]:
        """The captions of each photo, best first, from grid features (B, cells, channels).

        `constraints` has further ones for each photo, or is empty; `Bundle.constraints` makes them of words. Raises
        OptionError where no caption of a photo meets its constraints.
        """
        rows = self._share_out(
            lambda part: self._search(
                features[part], options, constraints=[constraints[row] for row in part] if constraints else ()
            ),
            np.arange(len(features)),
        )
        return list(itertools.chain(*rows))

    def describe(
        self, features: Array, options: DecodeOptions, confidence: ConfidenceOptions, *, threads: int = 0
    ) -> list[Description]:
        """The description of each photo that records hold, from grid features float32 (B, cells, channels).

        `threads` as in `features`.
        """
        parts = self._share_out(lambda part: self._describe(part, options, confidence), features, threads)
        return list(itertools.chain(*parts))

    def attention_of(self, features: Array, found: Sequence[Description], style: str) -> list[tuple[AttentionMap, ...] | None]:
        """The attention maps of each photo's best caption, as records have them; None where there is no caption."""
        maps: list[tuple[AttentionMap, ...] | None] = [None] * len(found)
        rows = [row for row, described in enumerate(found) if described.captions]
        if rows:
            best = [found[row].captions[0] for row in rows]
            for row, each in zip(rows, self.attention(features[rows], best, style), strict=True):
                maps[row] = tuple(tuple(map(tuple, grid)) for grid in each.tolist())
        return maps

    def attention(self, features: Array, captions: Sequence[Caption], style: str) -> list[Array]:
        """Attention maps of one caption of each photo: float32 (tokens, side, side), each map summing to 1.

        Give the features (B, cells, channels) and the `style` of the captions' search. Raises OptionError where the model has
        no attention.
        """
        ids = [self.bundle.vocabulary.encode(caption.tokens) for caption in captions]
        return attention_maps(self.decoder, features, ids, self.bundle.vocabulary.search_tokens(style).begin)

    def _share_out(self, work: Callable[[Array], T], photos: Array, threads: int = 0) -> list[T]:
        """Results of `work` on parts of the photos, one part for each thread; each network runs on one thread."""
        parts = np.array_split(photos, max(1, min(threads or self.parallel, len(photos))))
        if len(parts) == 1:
            return [work(photos)]
        with ThreadPoolExecutor(len(parts), "showtell-model") as pool:
            return list(pool.map(work, parts))

    def _features(self, pixels: Array) -> Array:
        return self.encoder(self.bundle.preprocessing.normalize(pixels))

    def _describe(
        self, features: Array, options: DecodeOptions, trust: ConfidenceOptions, stopped: Event | None = None
    ) -> list[Description]:
        if self.confidence is None:
            return [Description(captions) for captions in self._search(features, options, stopped)]
        assessed = self.confidence.assess(features)
        found = self._search(features, options, stopped, assessed=assessed)
        if trust.evidence and not options.sample:
            self._check_evidence(found, features, assessed, options, stopped)
        return [
            describe(self.confidence, captions, photo, options, trust) for captions, photo in zip(found, assessed, strict=True)
        ]

    def _check_evidence(
        self,
        found: list[tuple[Caption, ...]],
        features: Array,
        assessed: Sequence[Assessment],
        options: DecodeOptions,
        stopped: Event | None,
    ) -> None:
        """Replaces captions in `found` that name what their photos give no evidence of, where others are nearly as likely."""
        assert self.confidence is not None
        ids = self.bundle.vocabulary.ids
        said = frozenset(" ".join([options.start_with, *options.include]).lower().split())
        barred: dict[int, Constraints] = {}
        for row, captions in enumerate(found):
            words = self.confidence.unsupported(captions[0].tokens, assessed[row].probabilities, said)
            if words:
                barred[row] = Constraints(avoid=tuple((ids[word],) for word in words if word in ids))
        if not barred:
            return
        rows = list(barred)
        again = self._hypotheses(features[rows], options, stopped, list(barred.values()), [assessed[row] for row in rows])
        for row, others in zip(rows, again, strict=True):
            if others and found[row][0].score - others[0].score <= self.confidence.parameters.most_lost:
                found[row] = tuple(self._caption(hypothesis) for hypothesis in others)

    def _search(
        self,
        features: Array,
        options: DecodeOptions,
        stopped: Event | None = None,
        constraints: Sequence[Constraints] = (),
        assessed: Sequence[Assessment] = (),
    ) -> list[tuple[Caption, ...]]:
        found = self._hypotheses(features, options, stopped, constraints, assessed)
        if not all(found):
            raise OptionError(f"no caption of {options.max_length} words meets the constraints; raise max_length")
        return [tuple(self._caption(hypothesis) for hypothesis in hypotheses) for hypotheses in found]

    def _hypotheses(
        self,
        features: Array,
        options: DecodeOptions,
        stopped: Event | None,
        constraints: Sequence[Constraints],
        assessed: Sequence[Assessment] = (),
    ) -> list[list[Hypothesis]]:
        model: StepModel = self.decoder
        count = len(features)
        bonus: Array | None = None
        if self.confidence and not options.sample:  # samples are the decoder's own
            bonus = np.zeros((count, len(self.bundle.vocabulary)), np.float32)
            words = self.bundle.vocabulary.encode(self.confidence.detectors.words)
            bonus[:, words] = self.confidence.bonus(assessed or self.confidence.assess(features))
            model, features = Fused(model, features, bonus), np.arange(count)
        if stopped:
            model = _Stoppable(model, stopped)
        if options.include or options.avoid:
            common = self.bundle.constraints(options.include, options.avoid)
            constraints = [common + each for each in constraints] or [common] * count
        found = search(model, features, self.bundle.search_tokens(options), options, constraints)
        if bonus is None:
            return found
        return [[without_bonus(one, row) for one in each] for each, row in zip(found, bonus, strict=True)]

    def _caption(self, hypothesis: Hypothesis) -> Caption:
        tokens = self.bundle.vocabulary.decode(hypothesis.tokens)
        parts = tuple(pieces(tokens, spaced=self.bundle.text_rule.spaced))
        return Caption("".join(parts), hypothesis.score, tokens, pieces=parts, cut=not hypothesis.finished)

    def _run(
        self,
        photos: Iterable[PhotoSource],
        options: DecodeOptions,
        batch_size: int,
        workers: int | None,
        confidence: ConfidenceOptions,
        attention: bool = False,
    ) -> Generator[tuple[_Photo, Record], None, None]:
        self.bundle.check(options)
        # Of words to include, each doubles the hypotheses.
        width = options.num_captions if options.sample else options.beam_size * 2 ** len(options.include)
        searched = max(1, min(SEARCHED_PHOTOS, SEARCHED_HYPOTHESES // width) // batch_size)
        sizes = Sizes(batch_size, searched, threads=self.parallel, workers=workers or self.parallel)
        stopped = Event()

        def search_batches(batches: Sequence[_Batch]) -> list[tuple[_Photo, Record]]:
            return self._caption_batches(batches, options, confidence, stopped, attention)

        return stream(photos, self._read, self._encode, search_batches, sizes, stopped)

    def _encode(self, photos: Sequence[_Photo]) -> _Batch:
        pixels = [photo.pixels for photo in photos if photo.pixels is not None]
        features = self._features(np.stack(pixels)) if pixels else None
        return _Batch([replace(photo, pixels=None) for photo in photos], features)

    def _caption_batches(
        self,
        batches: Sequence[_Batch],
        options: DecodeOptions,
        confidence: ConfidenceOptions,
        stopped: Event,
        attention: bool,
    ) -> list[tuple[_Photo, Record]]:
        model, parts = self.bundle.name, [batch.features for batch in batches if batch.features is not None]
        features = np.concatenate(parts) if parts else None
        found = [] if features is None else self._describe(features, options, confidence, stopped)
        maps: list[tuple[AttentionMap, ...] | None] = [None] * len(found)
        if attention and features is not None:
            maps = self.attention_of(features, found, options.style)
        results = iter(zip(found, maps, strict=True))
        records = []
        for photo in (photo for batch in batches for photo in batch.photos):
            if photo.error is not None:
                records.append((photo, Record.failed(photo.name, photo.error, model)))
                continue
            described, attended = next(results)
            records.append((photo, Record.of(photo.name, described, photo.width, photo.height, model, attended)))
        return records

    def _read(self, source: PhotoSource) -> _Photo:
        name = name_of(source)
        try:
            photo = read_photo(source, self.bundle.preprocessing, name, self.images)
        except ImageError as error:
            return _Photo(name, None, error=error)
        return _Photo(name, photo.pixels, photo.width, photo.height)


def _load_again(model: str | Path, threads: int, device: Device, images: ImageSettings | None) -> Captioner:
    return load(model, threads=threads, device=device, images=images)


def load(
    model: str | Path | None = None, *, threads: int = 0, device: Device = "cpu", images: ImageSettings | None = None
) -> Captioner:
    """A captioner: the embedded model, or the bundle of that name or folder.

    `threads` is the number of processors for the networks, 0 for all that the machine or container has; `images` has the limits
    of photos. Raises BundleError where the bundle is missing, altered or of another format.
    """
    return Captioner(Bundle.find(model), threads=threads, device=device, images=images)
