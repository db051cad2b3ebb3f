"""Captions in metadata, read back by exiftool and Pillow; everything else stays byte for byte."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from showtell.archive import metadata
from showtell.archive.metadata import Metadata, sidecar, texts
from showtell.errors import DataError
from showtell.image import read_rgb
from showtell.types import Caption, Record

TEXT = 'a dog & a "cat" in snow, 日本'
FORMATS = {"a.jpg": "JPEG", "a.png": "PNG", "a.webp": "WEBP", "lossless.webp": "WEBP", "alpha.webp": "WEBP"}


def write(path: Path, text: str = TEXT, where: str = "embed", existing: str = "skip") -> None:
    Metadata(where, existing).write(Record(str(path), "ok", (Caption(text, -1.0, ()),)))


def program_or_skip() -> str:
    """The path of exiftool; `.ci/run` installs it, so that nothing is skipped there."""
    return shutil.which("exiftool") or pytest.skip("no exiftool on the path: install Debian's libimage-exiftool-perl")


def exiftool(path: Path) -> dict[str, str]:
    program = program_or_skip()
    tags = ["-XMP-dc:all", "-XMP-iptcCore:all", "-XMP-xmp:all", "-EXIF:all", "-validate", "-warning"]
    done = subprocess.run([program, "-json", *tags, str(path)], capture_output=True, check=True)
    return json.loads(done.stdout)[0]


def make(path: Path) -> Path:
    """A photo with EXIF and an ICC profile."""
    mode = "RGBA" if path.stem == "alpha" else "RGB"
    pixels = np.random.default_rng(3).integers(0, 256, (31, 47, len(mode)), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x010F] = "A maker"
    exif[0x0112] = 1
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {"lossless": path.stem != "a"} if path.suffix == ".webp" else {}
    Image.fromarray(pixels, mode).save(path, exif=exif.tobytes(), icc_profile=profile, **options)
    return path


def plain_webp(path: Path, *, lossless: bool, mode: str = "RGB") -> Path:
    """A WebP file of the simple form, without an extended header."""
    pixels = np.random.default_rng(3).integers(0, 256, (31, 48, len(mode)), dtype=np.uint8)
    Image.fromarray(pixels, mode).save(path, lossless=lossless)
    assert path.read_bytes()[12:16] == (b"VP8L" if lossless else b"VP8 ")
    return path


def parts(path: Path) -> list[bytes]:
    """All segments or chunks but XMP's, and but the header of WebP that says which of them there are."""
    data = path.read_bytes()
    if path.suffix == ".jpg":
        segments = metadata._jpeg_segments(data)
        return [data[begin:end] for _, begin, end in segments if metadata._JPEG_XMP not in data[begin : begin + 40]]
    if path.suffix == ".png":
        return [
            data[begin:end] for _, begin, end in metadata._png_chunks(data) if b"com.adobe.xmp" not in data[begin : begin + 40]
        ]
    return [data[begin:end] for kind, begin, end in metadata._webp_chunks(data) if kind not in (b"XMP ", b"VP8X")]


@pytest.mark.parametrize("name", FORMATS)
def test_an_independent_reader_finds_the_caption_and_all_else_is_unchanged(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name)
    before = parts(path)
    with Image.open(path) as image:
        pixels, info = np.asarray(image), image.info
    for text, existing in ((TEXT, "skip"), ("another one", "replace")):
        write(path, text, existing=existing)
        found = exiftool(path)
        assert found["Description"] == found["AltTextAccessibility"] == text
        assert found["Make"] == "A maker"
        assert found["Validate"].startswith("OK") or "error" not in found["Validate"].lower(), found
        assert parts(path) == before
        with Image.open(path) as image:
            assert (np.asarray(image) == pixels).all()
            assert image.info["icc_profile"] == info["icc_profile"]
            assert image.info["exif"] == info["exif"]
            assert image.format == FORMATS[name]


@pytest.mark.parametrize(("lossless", "mode"), [(False, "RGB"), (True, "RGB"), (True, "RGBA")])
def test_a_simple_webp_file_gets_the_extended_header(tmp_path: Path, lossless: bool, mode: str) -> None:
    path = plain_webp(tmp_path / "a.webp", lossless=lossless, mode=mode)
    before = parts(path)
    with Image.open(path) as image:
        pixels = np.asarray(image)
    write(path)
    assert exiftool(path)["Description"] == TEXT
    assert parts(path) == before
    with Image.open(path) as image:
        assert image.mode == mode
        assert (np.asarray(image) == pixels).all()


def tag(path: Path, *arguments: str) -> None:
    subprocess.run([program_or_skip(), "-q", "-overwrite_original", *arguments, str(path)], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
@pytest.mark.parametrize(("existing", "text"), [("skip", "mine"), ("replace", TEXT), ("add", f"mine\n{TEXT}")])
def test_text_that_another_program_wrote_is_kept_unless_told_otherwise(
    tmp_path: Path, name: str, existing: str, text: str
) -> None:
    path = make(tmp_path / name)
    tag(path, "-XMP-dc:Description=mine", "-XMP-dc:Description-de=meins", "-XMP-dc:Subject=holiday", "-XMP-xmp:Rating=4")
    assert Metadata("embed").has(str(path))
    for _ in range(2):
        write(path, existing=existing)
    packet = metadata.read(path)
    assert texts(packet) == (text, TEXT)  # the alt text was not there
    found = exiftool(path)
    assert found["Subject"] == "holiday"
    assert found["Rating"] == 4
    assert packet is not None
    assert "meins" in packet.decode()


def test_a_sidecar_is_read_by_other_programs_and_keeps_what_they_wrote(tmp_path: Path) -> None:
    path = tmp_path / "raw.tif"
    Image.new("RGB", (8, 8)).save(path)
    before = path.read_bytes()
    write(path, where="xmp")
    assert path.read_bytes() == before
    assert sidecar(path) == tmp_path / "raw.tif.xmp"
    found = exiftool(sidecar(path))
    assert found["Description"] == found["AltTextAccessibility"] == TEXT
    tag(sidecar(path), "-XMP-xmp:Rating=3")
    write(path, "new", where="xmp", existing="replace")
    found = exiftool(sidecar(path))
    assert (found["Description"], found["Rating"]) == ("new", 3)


def test_a_format_without_a_place_for_text_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    Image.new("RGB", (8, 8)).save(path)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"a.gif: no place for a caption .*--metadata xmp"):
        write(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_damaged_files_are_refused_and_stay(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name)
    whole = path.read_bytes()
    for cut in range(3, 400, 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=name):
            write(path)
        assert path.read_bytes() == whole[:cut]


@pytest.mark.parametrize("packet", [b"<x", b"<a/>", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'])
def test_broken_packets_are_refused(packet: bytes) -> None:
    with pytest.raises(DataError):
        texts(packet)


def test_the_prefixes_of_other_programs_stay() -> None:
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" xmlns:mine="urn:mine" mine:key="7"/></rdf:RDF></x:xmpmeta>'
    )
    written = metadata.described(packet, "a dog", "skip")
    assert written is not None
    assert b'mine:key="7"' in written
    assert metadata.described(written, "a cat", "skip") is None


def test_the_command_writes_metadata_once(album: Path, here) -> None:
    (album / "broken.jpg").unlink()
    before = read_rgb(album / "0.jpg").tobytes()
    assert here("caption", album, "--metadata", "embed")[0] == 0
    assert exiftool(album / "0.jpg")["Description"]
    assert read_rgb(album / "0.jpg").tobytes() == before
    status, _, errors = here("caption", album, "--metadata", "embed")
    assert status == 0
    assert "0 captioned, 0 failed, 5 had a caption" in errors
    assert here("caption", album, "--metadata", "xmp")[0] == 0
    assert (album / "below" / "4.jpg.xmp").exists()


@pytest.mark.parametrize("run", [False, True])
def test_a_photo_that_takes_no_caption_is_named_and_the_others_go_on(album: Path, tmp_path: Path, here, run: bool) -> None:
    (album / "broken.jpg").unlink()
    Image.new("RGB", (16, 16)).save(album / "00.gif")
    arguments = ["--run", tmp_path / "run"] if run else []
    status, _, errors = here("caption", album, "--metadata", "embed", *arguments)
    assert status == 1
    assert "00.gif: no place for a caption" in errors
    assert "6 captioned, 0 failed" in errors
    assert "1 captions could not be written" in errors
    assert all(any(texts(metadata.read(path))) for path in album.rglob("*.jpg"))
