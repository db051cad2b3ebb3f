"""Any file to RGB to model input."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from showtell.errors import ImageError, OptionError
from showtell.image import Preprocessing, read_rgb, to_pixels

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


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to see it upright
    data = encoded(Image.fromarray(RED_LEFT), "JPEG", exif=exif)
    image = read_rgb(data)
    assert image.size == (40, 60)
    assert near(image, np.rot90(RED_LEFT, 3))


def test_malformed_exif_is_ignored() -> None:
    data = encoded(Image.fromarray(RED_LEFT), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage")
    assert near(read_rgb(data), RED_LEFT)


def test_transparency_is_composited_on_white() -> None:
    rgba = np.dstack([RED_LEFT, np.full((40, 60), 255, np.uint8)])
    rgba[:20, :, 3] = 0
    expected = RED_LEFT.copy()
    expected[:20] = 255
    image = Image.fromarray(rgba)
    assert near(read_rgb(encoded(image, "PNG")), expected)
    assert near(read_rgb(rgba), expected)
    palette = image.convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert np.asarray(read_rgb(palette))[0, 0].tolist() == [255, 255, 255]


def test_other_modes_keep_their_colours() -> None:
    image = Image.fromarray(RED_LEFT)
    assert near(read_rgb(encoded(image.convert("CMYK"), "JPEG")), np.asarray(image.convert("CMYK").convert("RGB")))
    assert near(read_rgb(encoded(image.convert("P"), "PNG")), RED_LEFT)
    grey = np.asarray(image.convert("L"))
    assert near(read_rgb(encoded(image.convert("L"), "PNG")), np.dstack([grey] * 3))
    deep = (grey.astype(np.uint16) * 257)[..., None].squeeze()
    assert near(read_rgb(encoded(Image.fromarray(deep), "PNG")), np.dstack([grey] * 3), tolerance=1)


def test_arrays() -> None:
    assert near(read_rgb(RED_LEFT), RED_LEFT, tolerance=0)
    assert near(read_rgb(RED_LEFT / np.float32(255)), RED_LEFT, tolerance=0)
    for bad in (np.zeros((3, 40, 60), np.uint8), np.zeros((4, 4), np.int64), np.full((4, 4), 2.0), np.zeros((0, 4), np.uint8)):
        with pytest.raises(ImageError, match="array"):
            read_rgb(bad)


def test_errors_name_the_file_and_have_a_code(tmp_path: Path) -> None:
    jpeg = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)), "JPEG")
    cases = {"text.jpg": (b"no picture", "not-an-image"), "empty.jpg": (b"", "empty"), "cut.jpg": (jpeg[:4000], "truncated")}
    for name, (data, code) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=name) as caught:
            read_rgb(tmp_path / name)
        assert caught.value.code == code
    for path, code in ((tmp_path / "absent.jpg", "not-found"), (tmp_path, "not-an-image")):
        with pytest.raises(ImageError) as caught:
            read_rgb(path)
        assert caught.value.code == code


def test_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = encoded(Image.new("1", (30_000, 20_000)), "PNG")
    with pytest.raises(ImageError) as caught:
        read_rgb(bomb, "bomb.png")
    assert caught.value.code == "too-many-pixels"


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
