"""Any file to RGB to model input."""

import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from showtell.errors import ImageError, OptionError
from showtell.image import ImageSettings, Preprocessing, name_of, read_photo, read_rgb, to_pixels
from showtell.image.jpeg import passes

RED_LEFT = np.zeros((40, 60, 3), np.uint8)
RED_LEFT[:, :30, 0] = 255
RED_LEFT[:, 30:, 2] = 255


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def near(image: Image.Image, expected: np.ndarray, tolerance: int = 12) -> bool:
    difference = np.abs(np.asarray(image).astype(int) - expected.astype(int))
    return image.mode == "RGB" and float(np.median(difference)) <= tolerance and difference.mean() <= tolerance


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_formats_from_path_bytes_and_object(format_: str, tmp_path: Path) -> None:
    data = encoded(Image.fromarray(RED_LEFT), format_)
    path = tmp_path / "no suffix needed"
    path.write_bytes(data)
    for source in (path, str(path), data):
        assert near(read_rgb(source), RED_LEFT)
    with Image.open(path) as image:
        assert near(read_rgb(image), RED_LEFT)


def test_transparency_is_composited_on_white() -> None:
    rgba = np.dstack([RED_LEFT, np.full((40, 60), 255, np.uint8)])
    rgba[:20, :, 3] = 0
    expected = RED_LEFT.copy()
    expected[:20] = 255
    assert near(read_rgb(rgba), expected)
    palette = Image.fromarray(rgba).convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert np.asarray(read_rgb(palette))[0, 0].tolist() == [255, 255, 255]


def test_arrays() -> None:
    assert near(read_rgb(RED_LEFT), RED_LEFT, tolerance=0)
    assert near(read_rgb(RED_LEFT / np.float32(255)), RED_LEFT, tolerance=0)
    assert read_rgb(RED_LEFT[..., :1]).size == (60, 40)
    deep = np.array([[0, 128, 32768, 65535]], np.uint16)
    assert np.asarray(read_rgb(deep))[0, :, 0].tolist() == [0, 0, 128, 255]
    assert np.asarray(read_rgb(np.array([[False, True]])))[0, :, 0].tolist() == [0, 255]
    for bad, code, message in (
        (np.zeros((3, 40, 60), np.uint8), "not-an-image", "array .*transpose"),
        (np.zeros((4, 4), np.int64), "not-an-image", "array of int64"),
        (np.full((4, 4), 2.0), "not-an-image", "float array outside 0..1"),
        (np.zeros((0, 4), np.uint8), "empty", "array of shape .* has no pixels"),
    ):
        with pytest.raises(ImageError, match=message) as caught:
            read_rgb(bad)
        assert caught.value.code == code


def test_sources_beside_paths(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(RED_LEFT), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        assert name_of(file) == str(path)
        assert near(read_rgb(file), RED_LEFT, tolerance=0)
    with pytest.raises(ImageError, match="closed"):
        read_rgb(file)
    with path.open(encoding="latin-1") as text, pytest.raises(ImageError, match="mode 'rb'"):
        read_rgb(text)  # type: ignore[arg-type]
    for source in (io.BytesIO(data), bytearray(data), memoryview(data)):
        assert near(read_rgb(source), RED_LEFT, tolerance=0)
    for nonsense in (None, 3, {}):
        with pytest.raises(ImageError, match="cannot be read as a photo"):
            read_rgb(nonsense)  # type: ignore[arg-type]
    image = Image.fromarray(RED_LEFT)
    assert read_rgb(image) is not image  # whoever changes the one must not change the other
    for odd in ("", tmp_path / "null\0", path / "below", tmp_path / "absent.jpg", tmp_path):
        with pytest.raises(ImageError) as caught:
            read_rgb(odd)
        assert caught.value.code == ("not-an-image" if odd == tmp_path else "not-found")


def test_pillow_images_of_every_mode() -> None:
    image = Image.fromarray(RED_LEFT)
    grey = np.asarray(image.convert("L").convert("RGB"))
    for mode in ("RGBX", "RGBA", "CMYK", "YCbCr", "HSV"):
        assert near(read_rgb(image.convert(mode)), RED_LEFT, tolerance=3), mode
    assert near(read_rgb(image.convert("RGBA").convert("RGBa")), RED_LEFT, tolerance=0)
    for mode in ("L", "LA", "I", "F"):
        assert near(read_rgb(image.convert(mode)), grey, tolerance=1), mode
    assert near(read_rgb(image.convert("LA").convert("La")), grey, tolerance=0)
    assert near(read_rgb(image.quantize(4).convert("PA")), RED_LEFT, tolerance=3)
    wide = np.array([[-50.0, 0.0, np.nan, 150.0]], np.float32)  # no range that images use: stretched
    assert np.asarray(read_rgb(Image.fromarray(wide)))[0, :, 0].tolist() == [0, 64, 0, 255]


def test_limits_are_settings_and_come_in_order(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(RED_LEFT), "PNG")
    for settings, code in (
        (ImageSettings(max_bytes=len(data) - 1), "too-large"),
        (ImageSettings(max_pixels=60 * 40 - 1), "too-many-pixels"),
        (ImageSettings(max_bytes=len(data), max_pixels=60 * 40), None),
    ):
        (tmp_path / "a.png").write_bytes(data)
        for source in (data, io.BytesIO(data), tmp_path / "a.png"):
            if code is None:
                assert read_rgb(source, "a.png", settings).size == (60, 40)
                continue
            with pytest.raises(ImageError, match="a.png") as caught:
                read_rgb(source, "a.png", settings)
            assert caught.value.code == code
    with pytest.raises(OptionError, match="max_pixels is 0"):
        ImageSettings(max_pixels=0)
    error = pickle.loads(pickle.dumps(ImageError("empty", "a.png: the file is empty")))
    assert (error.code, str(error)) == ("empty", "a.png: the file is empty")


def test_scans_of_a_jpeg_count() -> None:
    image = Image.fromarray(RED_LEFT).resize((640, 480))
    assert passes(encoded(image, "JPEG")) == 1
    data = encoded(image, "JPEG", progressive=True)
    assert passes(data) == 10
    last = data.rindex(b"\xff\xda")
    bomb = data[:last] + data[last:-2] * 5000 + b"\xff\xd9"
    assert passes(bomb) >= 5000
    with pytest.raises(ImageError, match="passes") as caught:
        read_rgb(bomb, "bomb")
    assert caught.value.code == "too-many-pixels"


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_large_jpegs_decode_scaled_and_hardly_differ(orientation: int) -> None:
    """The sizes are no multiples of the scale, so that a part of a pixel is left over at two edges."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((1027, 773), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, "JPEG", quality=95, exif=exif)
    wants = Preprocessing(size=64)
    photo = read_photo(data, wants)
    whole = read_rgb(data)
    assert (photo.width, photo.height) == whole.size
    difference = np.abs(photo.pixels.astype(int) - to_pixels(whole, wants))
    assert 0 < difference.mean() < 0.6
    assert difference.max() <= 6
    # Below 2.8 times the model's size nothing is scaled, and the pixels are the same. A crop needs more of the photo.
    crop = Preprocessing(size=275, resize="crop", crop=0.9)
    for wants, same in ((Preprocessing(size=276), True), (Preprocessing(size=275), False), (crop, True)):
        assert np.array_equal(read_photo(data, wants).pixels, to_pixels(whole, wants)) == same


def test_heic_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"-m pip install .*\[heif\]'") as caught:
        read_rgb(data, "phone.heic", ImageSettings(max_pixels=999_999))  # no decoder is cached for this limit
    assert caught.value.code == "unsupported-format"


def test_preprocessing_squashes_orders_and_scales() -> None:
    caffe = Preprocessing(size=4, channel_order="bgr", mean=(103.939, 116.779, 123.68))
    pixels = to_pixels(Image.new("RGB", (60, 20), (200, 100, 50)), caffe)
    assert pixels.shape == (4, 4, 3)
    values = caffe.normalize(pixels)
    assert values.dtype == np.float32
    assert values.shape == (3, 4, 4)
    assert values[:, 0, 0].tolist() == pytest.approx([50 - 103.939, 100 - 116.779, 200 - 123.68], abs=1e-4)
    torch_style = Preprocessing(size=4, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    expected = [(200 / 255 - 0.485) / 0.229, (100 / 255 - 0.456) / 0.224, (50 / 255 - 0.406) / 0.225]
    assert torch_style.normalize(pixels[None])[0, :, 0, 0].tolist() == pytest.approx(expected, abs=1e-5)
    with pytest.raises(OptionError, match="rbg"):
        Preprocessing(channel_order="rbg")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="colour"):
        Preprocessing.from_json({"colour": 1})
