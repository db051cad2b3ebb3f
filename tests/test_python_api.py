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
from showtell.decoding import Constraints
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


CONSTRAINTS: list[dict[str, Any]] = [
    {"start_with": "A photo of"},
    {"include": "wall"},
    {"include": ["umbrella", "plant"], "beam_size": 1},
    {"include": "traffic light", "start_with": "there is"},
    {"avoid": "cat, squirrel"},
    {"avoid": ["cat", "sitting on"], "min_length": 14},
    {"avoid": "cat", "start_with": "a picture of", "min_length": 9, "sample": True, "seed": 4, "num_captions": 20},
    {"avoid": "cat", "include": "table", "start_with": "there", "min_length": 9, "num_captions": 3},
]


@pytest.mark.parametrize("options", CONSTRAINTS)
def test_captions_keep_their_constraints(captioner: showtell.Captioner, options: dict[str, Any]) -> None:
    """The captions of one photo in a batch and alone, and the forms in which words may be given."""
    asked = captioner.options(**options)
    both = [captioner(PHOTO, **options), captioner([PHOTO, np.zeros((9, 9, 3), np.uint8)], **options)[0]]
    assert both[0].text == both[1].text
    for caption in (both[0], *both[0].alternatives):
        assert caption.text.startswith(asked.start_with.lower())
        assert all(f" {words} " in f" {caption.text} " for words in asked.include)
        assert not any(f" {form} " in f" {caption.text} " for words in asked.avoid for form in (words, f"{words}s"))
        assert len(caption.tokens) >= asked.min_length or caption.cut


def test_an_is_said_before_vowels(captioner: showtell.Captioner) -> None:
    assert " an umbrella" in captioner(PHOTO, include="umbrella").text
    assert " a orange" not in f" {captioner(PHOTO, include='orange, umbrella').text}"


def test_each_photo_may_have_constraints_of_its_own(captioner: showtell.Captioner) -> None:
    pixels = np.stack([np.asarray(read_rgb(PHOTO).resize((256, 256)))] * 4)
    features = captioner.features(pixels)
    cat = captioner.bundle.vocabulary.ids["cat"]
    words = captioner.bundle.constraints
    own = [words(), words(avoid=["cat"]), Constraints(avoid=((cat,),)), words(include=["dog"])]
    captions = [found[0].tokens for found in captioner.search(features, captioner.options(), own)]
    assert captions[0] == captioner.search(features[:1], captioner.options())[0][0].tokens
    assert "cat" in captions[0]
    assert not {"cat", "cats"} & set(captions[1])
    assert "cat" not in captions[2]
    assert "dog" in captions[3]
    for options in ({"avoid": "table"}, {"include": "table"}):
        together = captioner.search(features, captioner.options(**options), own)
        assert ["table" in found[0].tokens for found in together] == ["include" in options] * 4
        assert ["cat" in found[0].tokens for found in together[1:3]] == [False, False]
        assert "dog" in together[3][0].tokens


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"include": "umbrela"}, "include is 'umbrela'; this model does not know the word 'umbrela'; it knows umbrella"),
        ({"start_with": "a phtoo of"}, "start_with is 'a phtoo of'; this model does not know the word 'phtoo'; it knows photo"),
        ({"avoid": ["dog", "<unknown>"]}, "avoid is '<unknown>'; this model does not know the word '<unknown>'"),
        ({"avoid": "<style:coco>"}, "this model does not know the word"),
        ({"start_with": "..."}, "start_with is '...'"),
        ({"include": "dogs", "avoid": "dog"}, "include is 'dogs', and avoid= has 'dog', which bars plurals too"),
        ({"include": "fire truck", "avoid": "fire"}, "include is 'fire truck', and avoid= has 'fire'"),
        ({"start_with": "a man", "avoid": "man"}, "start_with is 'a man', and man is to be avoided"),
        ({"min_length": 21}, "min_length is 21 and max_length 20; raise max_length"),
        ({"min_length": -1}, "min_length is -1; it must be a whole number from 0"),
        ({"start_with": "a photo of", "max_length": 3}, "max_length is 3, and start_with= and include= take 3 words; raise it"),
        ({"include": "a,dog,cat", "max_length": 2}, "max_length is 2, and start_with= and include= take 3 words"),
        ({"include": "a,b,c,d,e"}, "include is a, b, c, d, e; it may have 4 words at most"),
        ({"include": ["fire truck", "traffic light", "dog"]}, "include has 5 words; a search can ask for 4 at most"),
        ({"include": "dog", "sample": True}, "include= acts on beam search and not on samples"),
        ({"include": 5}, "include is 5; it must be a word"),
        ({"avoid": [5]}, r"avoid is \[5\]; it must be a word"),
        ({"start_with": 5}, "start_with is 5; it must be text"),
    ],
)
def test_impossible_constraints_are_refused_before_the_work(
    captioner: showtell.Captioner, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(OptionError, match=named):
        captioner("no-such-photo.jpg", **options)  # which would be another error
    with pytest.raises(OptionError, match=named):
        list(captioner.records([PHOTO], **options))


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
        (
            ["--include-word", "umbrela"],
            "--include-word is 'umbrela'; this model does not know the word 'umbrela'; it knows umb",
        ),
        (["--include-word", "dog", "--sample"], "--include-word acts on beam search and not on samples: leave --sample out"),
        (
            ["--include-word", "dogs", "--avoid", "dog"],
            "--include-word is 'dogs', and --avoid has 'dog', which bars plurals too",
        ),
        (["--min-length", "30"], "--min-length is 30 and --max-length 20; raise --max-length"),
        (["--start-with", "a man", "--max-length", "2"], "--max-length is 2, and --start-with and --include-word take 2 words"),
    ],
)
def test_the_command_names_flags(here, arguments: list[str], message: str) -> None:
    status, _, errors = here("caption", PHOTO, *arguments)
    assert (status, errors[: len(f"showtell: {message}")]) == (2, f"showtell: {message}")
    assert "_" not in errors


def test_the_command_takes_words(here) -> None:
    words = ("--include-word", "table,wall", "--include-word", "plant", "--avoid", "dog", "--avoid", "cat,bird")
    status, text, _ = here("caption", PHOTO, "--start-with", "There is", *words, "--min-length", 8)
    assert status == 0
    assert text.startswith("there is ")
    said = text.split()
    assert {"table", "wall", "plant"} <= set(said)
    assert not {"cat", "dog", "bird"} & set(said)
    assert len(said) >= 8
    # The globs for files have names alike.
    assert here("caption", PHOTO.parent, "--include", "cat.*", "--include-word", "wall")[1].split("\t")[0].endswith("cat.jpg")


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
