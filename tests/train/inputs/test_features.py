"""Feature caches: computed once for each photo, by content, whatever interrupts."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from showtell.data import PhotoStore, read
from showtell.errors import CacheError
from showtell.image import Preprocessing
from showtell.nn.resnet import ResNet, ResNetConfig
from showtell.train.inputs.features import FeatureSource, View
from showtell.train.inputs.views import Augmentation


def encoder(width: int = 8) -> ResNet:
    torch.manual_seed(width)
    return ResNet(ResNetConfig("v1.5", width=width)).eval()


def test_features_are_those_of_the_encoder_in_order(shapes: Path, tmp_path: Path) -> None:
    photos = read(shapes).photos
    network, preprocessing = encoder(), Preprocessing(size=64, scale=1 / 255)
    cache = FeatureSource(network, preprocessing).extract(tmp_path / "c", photos, photos.names(), batch_size=7)
    assert cache.array.shape == (60, 4, 256)
    assert cache.array.dtype == np.float16
    [alone] = cache.rows(["images/red-cross-1.jpg"])
    one = FeatureSource(network, preprocessing).extract(tmp_path / "one", photos, ["red-cross-1.jpg"])
    assert np.allclose(cache.array[alone], one.array[0], atol=2e-3)
    assert len({row.tobytes() for row in cache.array}) == 60
    with pytest.raises(CacheError, match=r"other\.jpg"):
        cache.rows(["other.jpg"])


def test_interrupted_extraction_goes_on_where_it_stopped(shapes: Path, tmp_path: Path) -> None:
    photos = read(shapes).photos
    source = FeatureSource(encoder(), Preprocessing(size=64, scale=1 / 255))

    def stop(what: str, done: int, total: int) -> None:
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        source.extract(tmp_path / "c", photos, photos.names(), batch_size=8, progress=stop)
    seen: list[int] = []
    cache = source.extract(tmp_path / "c", photos, photos.names(), batch_size=8, progress=lambda *step: seen.append(step[1]))
    assert seen == [16, 24, 32, 40, 48, 56, 60]
    whole = source.extract(tmp_path / "whole", photos, photos.names(), batch_size=8)
    assert np.array_equal(cache.array, whole.array)


def test_caches_are_never_mixed(shapes: Path, tmp_path: Path) -> None:
    photos = read(shapes).photos
    preprocessing = Preprocessing(size=32)
    names = photos.names()[:4]
    FeatureSource(encoder(), preprocessing).extract(tmp_path / "c", photos, names)
    for network, how, named in (
        (encoder(width=16), preprocessing, "encoder"),
        (encoder(), Preprocessing(size=32, channel_order="bgr"), "preprocessing"),
        (encoder(), Preprocessing(size=64), "preprocessing"),
    ):
        with pytest.raises(CacheError, match=f"another {named}"):
            FeatureSource(network, how).extract(tmp_path / "c", photos, names)
    with pytest.raises(CacheError, match="another output"):
        FeatureSource(encoder(), preprocessing, after_stage=3).extract(tmp_path / "c", photos, names)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(CacheError, match="not a feature cache"):
        FeatureSource(encoder(), preprocessing).extract(tmp_path / "full", photos, names)


class Computed:
    """The encoder, and how many photos it was given."""

    def __init__(self, folder: Path, width: int = 8) -> None:
        self.folder, self.encoder, self.count = folder, encoder(width), 0
        self.encoder.register_forward_hook(self._count)

    def _count(self, module: torch.nn.Module, given: tuple[torch.Tensor, ...], found: torch.Tensor) -> None:
        self.count += len(given[0])

    def __call__(
        self, photos: PhotoStore, names: list[str], view: View | None = None, **options: Any
    ) -> tuple[np.ndarray, int]:
        """Features of the photos in their order, and of how many they were computed."""
        before = self.count
        source = FeatureSource(self.encoder, Preprocessing(size=64, scale=1 / 255), view=view)
        cache = source.extract(self.folder, photos, names, **options)
        return cache.array[cache.rows(names)], self.count - before


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal but for what the size of a batch changes in the last places."""
    return np.allclose(one, other, rtol=1e-2, atol=1e-5)


def bitmaps(folder: Path, seed: int, count: int = 5) -> PhotoStore:
    """Photos called 0.bmp, 1.bmp and so on, all of one size in bytes."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng([seed, number]).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.bmp")
    return PhotoStore([folder])


def test_photos_of_the_same_names_and_sizes_have_their_own_features(tmp_path: Path) -> None:
    one, two = bitmaps(tmp_path / "one", 1), bitmaps(tmp_path / "two", 2)
    names = one.names()
    assert [one.size(name) for name in names] == [two.size(name) for name in names]
    shared = Computed(tmp_path / "cache")
    first, computed = shared(one, names)
    assert computed == 5
    second, computed = shared(two, names)
    assert computed == 5
    assert alike(second, Computed(tmp_path / "alone")(two, names)[0])
    assert not alike(first, second)
    again, computed = shared(bitmaps(tmp_path / "one", 1), names)  # and the first ones are still there
    assert computed == 0
    assert np.array_equal(again, first)


def test_only_what_changed_is_extracted_anew(tmp_path: Path) -> None:
    folder, shared = tmp_path / "photos", Computed(tmp_path / "cache")
    names = bitmaps(folder, 1).names()
    before, _ = shared(PhotoStore([folder]), names)
    status = (folder / "1.bmp").stat()
    Image.open(folder / "1.bmp").transpose(Image.Transpose.ROTATE_180).save(folder / "1.bmp")  # upright, of the same size
    os.utime(folder / "1.bmp", ns=(status.st_atime_ns, status.st_mtime_ns))
    Image.open(folder / "3.bmp").resize((60, 40)).save(folder / "3.bmp")  # of another size
    Image.new("RGB", (9, 9), "red").save(folder / "new.bmp")
    shutil.copy(folder / "0.bmp", folder / "0 again.bmp")
    names = PhotoStore([folder]).names()
    after, computed = shared(PhotoStore([folder]), names)
    assert computed == 3  # 1, 3 and the new one
    assert alike(after, Computed(tmp_path / "alone")(PhotoStore([folder]), names)[0])
    kept = [names.index(name) for name in ("0.bmp", "2.bmp", "4.bmp")]
    assert np.array_equal(after[kept], before[[0, 2, 4]])
    assert np.array_equal(after[names.index("0 again.bmp")], before[0])
    assert shared(PhotoStore([folder]), names[::-1])[1] == 0  # in any order, and fewer of them
    assert np.array_equal(shared(PhotoStore([folder]), names[2:4])[0], after[2:4])


def test_a_photo_that_changes_while_features_are_extracted_is_known_by_what_was_read(tmp_path: Path) -> None:
    folder, shared = tmp_path / "photos", Computed(tmp_path / "cache")
    photos = bitmaps(folder, 1)
    names = photos.names()
    for name in names:
        photos.digest(name)
    Image.new("RGB", (9, 9), "red").save(folder / "2.bmp")
    shared(photos, names)
    bitmaps(folder, 1)  # as it was
    found, computed = shared(PhotoStore([folder]), names)
    assert computed == 1
    assert alike(found, Computed(tmp_path / "alone")(PhotoStore([folder]), names)[0])


def test_a_row_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    shared, photos = Computed(tmp_path / "cache"), bitmaps(tmp_path / "photos", 1)
    whole, _ = shared(photos, photos.names(), batch_size=2)
    features, keys = (tmp_path / "cache" / name for name in ("features.f16", "rows.sha256"))
    for file, length in ((keys, 32 * 3 + 7), (features, len(features.read_bytes()) - 5)):
        file.write_bytes(file.read_bytes()[:length])
        found, computed = shared(photos, photos.names(), batch_size=2)
        assert computed == (2 if file == keys else 1)
        assert alike(found, whole)
        assert keys.stat().st_size == 32 * 5


def test_a_view_is_made_anew_where_a_caption_begins_to_tell_left_from_right(tmp_path: Path) -> None:
    shared, photos = Computed(tmp_path / "cache"), bitmaps(tmp_path / "photos", 1)
    names = photos.names()
    captions = {name: ["a dog"] for name in names}

    def extracted(captions: dict[str, list[str]]) -> tuple[np.ndarray, int]:
        augmentation = Augmentation.of(captions, seed=1, flip=1.0, crop_min=1.0, crop_max=1.0, colour=0.0)
        return shared(photos, names, view=View(augmentation, 1))

    mirrored, computed = extracted(captions)
    assert computed == 5
    found, computed = extracted({**captions, names[2]: ["a dog on the left"]})
    assert computed == 1
    assert [alike(one, other) for one, other in zip(found, mirrored, strict=True)] == [True, True, False, True, True]


def test_processes_that_fill_one_cache_do_not_spoil_it(tmp_path: Path) -> None:
    photos = bitmaps(tmp_path / "photos", 1)
    names, run = photos.names(), Computed(tmp_path / "alone")
    whole, _ = run(photos, names)
    other = Computed(tmp_path / "cache")

    def beside(what: str, done: int, total: int) -> None:
        if done == 2:  # another process extracts all of them in the meantime
            other(PhotoStore([tmp_path / "photos"]), names[::-1], batch_size=3)

    found, _ = Computed(tmp_path / "cache")(photos, names, batch_size=2, progress=beside)
    assert alike(found, whole)
    assert (tmp_path / "cache" / "rows.sha256").stat().st_size == 32 * 5
