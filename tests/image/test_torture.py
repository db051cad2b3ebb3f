"""Every odd file, through the command and through the library: the right picture or the right error for each."""

import json
import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from commands import run
from showtell.errors import ImageError
from showtell.image import ImageSettings, read_rgb
from torture import Case, cases, encode, picture, write

CASES = cases()


def check(case: Case, expected: Image.Image | str, settings: ImageSettings) -> None:
    if isinstance(expected, str):
        with pytest.raises(ImageError) as caught:
            read_rgb(case.data, "the name", settings)
        assert caught.value.code == expected, str(caught.value)
        assert "the name" in str(caught.value)
        return
    image = read_rgb(case.data, "the name", settings)
    assert image.mode == "RGB"
    assert image.size == expected.size
    rows = slice(*case.rows) if settings.lenient else slice(None)
    assert np.abs(np.asarray(image)[rows].astype(int) - np.asarray(expected)[rows]).mean() <= case.tolerance


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case.name))
def test_pixels_or_code(case: Case, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(case, case.expected, ImageSettings())
        check(case, case.lenient or case.expected, ImageSettings(lenient=True))
    assert capfd.readouterr() == ("", "")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.fixture
def _careless_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other libraries do to Pillow's settings, and more."""
    from PIL import AvifImagePlugin, BmpImagePlugin, GifImagePlugin, PngImagePlugin, TiffImagePlugin

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 1)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 1)
    monkeypatch.setattr(BmpImagePlugin, "USE_RAW_ALPHA", True)
    monkeypatch.setattr(GifImagePlugin, "LOADING_STRATEGY", GifImagePlugin.LoadingStrategy.RGB_ALWAYS)
    monkeypatch.setattr(TiffImagePlugin, "READ_LIBTIFF", True)
    monkeypatch.setattr(AvifImagePlugin, "DECODE_CODEC_CHOICE", "none")


@pytest.mark.usefixtures("_careless_library")
@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case.name))
def test_what_other_libraries_set_in_pillow_changes_nothing(case: Case) -> None:
    check(case, case.expected, ImageSettings())
    check(case, case.lenient or case.expected, ImageSettings(lenient=True))


@pytest.mark.parametrize("format_", ["PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
def test_more_pixels_than_pillow_allows_are_read_where_the_settings_do(format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(picture(), format_)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_rgb(data, settings=ImageSettings(max_pixels=64 * 48)).size == (64, 48)
    with pytest.raises(ImageError, match="at most 3,071 are decoded") as caught:
        read_rgb(data, settings=ImageSettings(max_pixels=64 * 48 - 1))
    assert caught.value.code == "too-many-pixels"


def test_command_gives_each_its_caption_or_its_code(
    float_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process for all; a picture's caption must be that of the same picture as a plain file."""
    monkeypatch.chdir(tmp_path)  # a socket is bound to a path relative to it
    folder = tmp_path / "torture"
    folder.mkdir()
    files = write(folder)
    assert len(files) >= 60
    plain = tmp_path / "plain"
    plain.mkdir()
    expected: dict[str, tuple[str, str]] = {}  # path to (path of its plain picture, code)
    for number, (path, case) in enumerate(files.items()):
        if isinstance(case.expected, str):
            expected[path] = ("", case.expected)
        else:
            expected[path] = (str(plain / f"{number}.png"), "")
            case.expected.save(plain / f"{number}.png")
    absent = str(folder / "absent.jpg")
    expected[absent] = ("", "not-found")
    paths = [*files, absent, *(path for path, _ in expected.values() if path)]
    stdin = b"\0".join(map(os.fsencode, paths))
    done = run("caption", "-", "--model", float_bundle, "--format", "jsonl", stdin=stdin)
    assert done.returncode == 1
    records = {record["path"]: record for record in map(json.loads, done.stdout.splitlines())}
    assert list(records) == paths
    same = 0
    for path, (reference, code) in expected.items():
        record = records[path]
        assert record.get("error", {}).get("code", "") == code, record
        assert record["status"] == ("error" if code else "ok")
        if code:
            assert Path(path).name in record["error"]["message"]
            continue
        assert (record["width"], record["height"]) == (records[reference]["width"], records[reference]["height"])
        if files[path].tolerance <= 2:  # with more loss than that a caption may differ
            assert record["caption"] == records[reference]["caption"], path
            same += 1
    assert same >= 40
    assert " red " in records[str(folder / "rgb.png")]["caption"]
    errors = done.stderr.decode("utf-8", "surrogateescape")
    assert "Traceback" not in errors
    failures = Counter(code for _, code in expected.values() if code)
    named = [line for line in errors.splitlines() if line.endswith("]")]
    assert len(named) == failures.total()
    assert f"{failures.total()} failed" in errors
    table = dict(reversed(line.split()) for line in errors.splitlines() if line.startswith("  "))
    assert table == {code: str(count) for code, count in failures.items()}


def test_folder_finds_photos_by_suffix_and_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from io import BytesIO

    from showtell.archive.sources import photos

    monkeypatch.chdir(tmp_path)
    files = write(tmp_path)
    (tmp_path / "notes").write_text("without a suffix, and no photo")
    os.mkfifo(tmp_path / "pipe without suffix")
    found = list(photos([str(tmp_path)], BytesIO()))
    unsought = {".svg", ".pdf", ".psd", ".ico", ".jp2", ".jxl", ".mp4", ".mkv"}
    assert sorted(found) == sorted(path for path in files if Path(path).suffix not in unsought)
    assert list(photos(["", str(tmp_path / "absent")], BytesIO())) == ["", str(tmp_path / "absent")]
    assert picture().size == (64, 48)
