"""Whatever bytes come, either a picture comes out or one of our errors."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from showtell.errors import ImageError
from showtell.image import ImageSettings, Preprocessing, looks_readable, read_photo, read_rgb
from showtell.image.jpeg import passes
from torture import cases

SMALL = [case.data for case in cases() if 0 < len(case.data) <= 10_000]
WANTS = Preprocessing(size=16)
LIMITED = [ImageSettings(max_pixels=1_000_000, lenient=lenient) for lenient in (False, True)]


def read(data: bytes, lenient: bool) -> None:
    try:
        photo = read_photo(data, WANTS, "the name", LIMITED[lenient])
    except ImageError as error:
        message = str(error)
    else:
        assert photo.pixels.shape == (16, 16, 3)
        assert photo.width > 0 < photo.height
        return
    assert "the name" in message


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file with bytes changed, taken out or put in, and perhaps its end missing or another file's start before it."""
    data = bytearray(draw(st.sampled_from(SMALL)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        piece = draw(st.sampled_from([b"\0", b"\xff", b"\x7f", b"\xff\xff\xff\xff", b"\0\0\0\1"]) | st.binary(max_size=8))
        data[at : at + draw(st.integers(0, 8))] = piece
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    if draw(st.integers(0, 9)) == 0:
        data[:0] = draw(st.sampled_from(SMALL))[: draw(st.integers(0, 64))]
    return bytes(data)


@settings(max_examples=400, deadline=None)
@given(damaged(), st.booleans())
def test_damaged_photos(data: bytes, lenient: bool) -> None:
    read(data, lenient)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", *{data[:12] for data in SMALL}]))
def test_any_bytes_behind_any_signature(data: bytes, signature: bytes) -> None:
    read(signature + data, False)
    assert looks_readable(signature + data) in (True, False)
    assert passes(signature + data) >= 1


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)) | st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.sampled_from(["?", "u1", "u2", "i4", "i8", "f2", "f4", "f8", "c8", "S3"]),
)
def test_any_array(shape: tuple[int, ...], kind: str) -> None:
    try:
        image = read_rgb(np.ones(shape, kind), "the name")
    except ImageError as error:
        code = error.code
    else:
        assert (image.mode, image.size) == ("RGB", (shape[1], shape[0]))
        return
    assert code in ("not-an-image", "empty")
