"""showtell from Python, with the embedded model: what may be passed in, what is refused, and captioners that travel."""

import copy
import io
import pickle
import subprocess
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from PIL import Image

import showtell
from showtell.errors import ImageError, MissingExtraError, OptionError
from showtell.image import ImageSettings, read_rgb
from showtell.runtime.captioner import _Stoppable

PHOTO = Path(__file__).parent.parent / "examples" / "photos" / "cat.jpg"


@pytest.fixture(scope="module")
def captioner() -> showtell.Captioner:
    return showtell.load(threads=1, images=ImageSettings(lenient=True))


@pytest.mark.parametrize(
    "single",
    [
        str(PHOTO),
        PHOTO,
        PHOTO.read_bytes(),
        bytearray(PHOTO.read_bytes()),
        io.BytesIO(PHOTO.read_bytes()),
        Image.new("RGB", (9, 9)),
        np.zeros((9, 9, 3), np.uint8),
        None,
        7,
    ],
    ids=lambda value: type(value).__name__,
)
def test_records_of_one_photo_asks_for_a_list(captioner: showtell.Captioner, single: Any) -> None:
    with pytest.raises(OptionError, match=r"records takes several photos; pass a list, \[photo\]"):
        captioner.records(single)


@pytest.mark.parametrize("several", [(PHOTO for _ in range(2)), {PHOTO}, {PHOTO: 1}.keys(), map(str, [PHOTO])])
def test_what_holds_several_photos_and_is_no_list_is_named(captioner: showtell.Captioner, several: Any) -> None:
    with pytest.raises(OptionError, match=r"holds several photos; pass a list, or stream them with records\(\)"):
        captioner(several)


def test_records_takes_anything_that_gives_photos(captioner: showtell.Captioner) -> None:
    expected = captioner(PHOTO).text
    pixels = np.asarray(read_rgb(PHOTO))
    for several in ((PHOTO for _ in range(2)), {PHOTO}, (str(PHOTO),), np.stack([pixels, pixels])):
        assert {record.caption for record in captioner.records(several)} == {expected}


def test_a_captioner_is_loaded_again_where_it_is_unpickled(captioner: showtell.Captioner) -> None:
    data = pickle.dumps(captioner)
    assert len(data) < 10_000
    assert b"models" not in data  # the embedded model is known by name, wherever it is installed
    for other in (pickle.loads(data), copy.deepcopy(captioner)):
        assert other is not captioner
        assert other.images == captioner.images
        assert other._loaded_with == (1, "cpu", ImageSettings(lenient=True))
        assert other(PHOTO) == captioner(PHOTO)


def test_closed_images_are_named() -> None:
    with Image.open(PHOTO) as lazy:
        pass
    loaded = Image.new("RGB", (9, 9))
    loaded.close()
    for closed in (lazy, loaded):
        with pytest.raises(ImageError, match="the image is closed; caption it before it is, or pass its path") as caught:
            read_rgb(closed)
        assert caught.value.code == "unreadable"
    with pytest.raises(ImageError, match=r"cat.jpg: the image is closed"):
        read_rgb(lazy)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"beam_size": 1000, "length_penalty": 11.0}, "length_penalty is 11.0"),
        ({"sample": True, "seed": -1}, "seed is -1"),
        ({"beam_size": "3"}, "beam_size is '3'"),
        ({"beam_size": 2600}, "beam_size is 2600"),
    ],
)
def test_options_out_of_range_are_refused(captioner: showtell.Captioner, options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        captioner(PHOTO, **options)


def test_a_beam_wider_than_the_vocabulary_is_refused(captioner: showtell.Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    words = len(captioner.bundle.vocabulary) - 4
    assert words > 1000  # the widest beam of all fits
    captioner.options(beam_size=1000)
    few = copy.copy(captioner.bundle.vocabulary)
    object.__setattr__(few, "words", few.words[:24])
    bundle = copy.copy(captioner.bundle)
    object.__setattr__(bundle, "vocabulary", few)
    monkeypatch.setattr(captioner, "bundle", bundle)
    assert captioner.options(beam_size=21).beam_size == 21
    with pytest.raises(OptionError, match="beam_size is 22; this model knows 20 words"):
        captioner.options(beam_size=22)


def test_a_search_ends_at_its_next_step_once_it_is_stopped(captioner: showtell.Captioner) -> None:
    from concurrent.futures import CancelledError

    stopped = Event()
    model = _Stoppable(captioner.decoder, stopped)
    state = model.start(np.zeros((1, 64, 1280), np.float32))
    model.step(np.ones((1, 1), np.int64), state)
    stopped.set()
    with pytest.raises(CancelledError):
        model.step(np.ones((1, 1), np.int64), state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "-1", "--sample"], "--seed is -1; it must be a whole number from 0 to"),
        (["--beam-size", "2600"], "--beam-size is 2600; it must be a whole number from 1 to 1,000"),
        (["--length-penalty", "1000"], "--length-penalty is 1000.0; it must be a number from 0 to 10"),
        (["--temperature", "0.5"], "--temperature, --top-p and --seed act on sampling alone: add --sample"),
    ],
)
def test_the_command_names_flags(here, arguments: list[str], message: str) -> None:
    status, _, errors = here("caption", PHOTO, *arguments)
    assert (status, errors[: len(f"showtell: {message}")]) == (2, f"showtell: {message}")
    assert "_" not in errors


def test_the_command_names_the_flag_for_damaged_photos_and_leaves_names_alone(here, tmp_path: Path) -> None:
    cut = tmp_path / "beam_size is top_p.jpg"
    cut.write_bytes(PHOTO.read_bytes()[:9000])
    status, _, errors = here("caption", cut)
    assert status == 2
    assert errors.startswith(f"showtell: {cut}: the file is cut short")
    assert "or accept its decoded part (--lenient) [truncated]" in errors


def test_help_says_whole_sentences_and_the_command_calls_itself_showtell(here) -> None:
    status, text, _ = here("--help")
    assert status == 0
    assert "..." not in text.split("Commands:")[1]
    assert "Score the captions of a model or a file against references, or compare models or files." in " ".join(text.split())
    assert text.startswith("Usage: showtell ")
    assert "..." not in here("data", "-h")[1].split("Commands:")[1]
    assert here("--version")[1].startswith("showtell, version ")


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "'showtell[train]'"),
        ('{"url": "file:///home/me/my%20clone", "dir_info": {"editable": true}}', "--editable '/home/me/my clone[train]'"),
        ('{"url": "file:///home/me/clone", "dir_info": {}}', "'/home/me/clone[train]'"),
        (
            '{"url": "https://example.org/showtell.git", "vcs_info": {"vcs": "git"}}',
            "'showtell[train] @ git+https://example.org/showtell.git'",
        ),
    ],
)
def test_what_is_missing_is_installed_from_where_showtell_came(
    origin: str | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return origin

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Installed())
    monkeypatch.setattr("sys.executable", "/venv/bin/python")
    expected = f"training needs packages that are not installed: /venv/bin/python -m pip install {command}"
    assert str(MissingExtraError("train", "training")) == expected


def test_make_caption_prints_captions_alone(tmp_path: Path) -> None:
    """With a pip and a showtell that only say that they ran."""
    root = PHOTO.parent.parent.parent
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\nmkdir -p "$3/bin"\nprintf "#!/bin/sh\\necho downloading; echo WARNING >&2" > "$3/bin/pip"\n'
        'printf "#!/bin/sh\\necho captions of \\$2" > "$3/bin/showtell"\nchmod +x "$3/bin/pip" "$3/bin/showtell"\n'
    )
    python.chmod(0o755)
    command = [
        "make",
        "--no-print-directory",
        "--directory",
        root,
        "caption",
        f"PYTHON={python}",
        f"RUNTIME={tmp_path / 'venv'}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "captions of examples/photos\n"), done.stderr
    assert done.stderr == f"Setting up {tmp_path / 'venv'}, once.\n"


def test_the_container_is_built_from_the_package_alone() -> None:
    root = PHOTO.parent.parent.parent
    kept = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert "*" in (root / ".dockerignore").read_text().splitlines()
    copied = [
        name
        for line in (root / "deploy" / "Containerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
    ]
    assert set(copied) == kept
    assert all((root / name).exists() for name in kept)
