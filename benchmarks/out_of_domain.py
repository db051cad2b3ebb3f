"""Builds a folder of pictures that are no photos of everyday scenes, to test `in_domain` and confidence on.

    mkdir packages && cd packages
    apt-get download gcompris-qt-data gimp-help-en plasma-workspace-wallpapers tuxpaint-stamps-default     # Debian 12
    npm pack openmoji@16.0.0
    pip download --no-deps scikit-image==0.26.0 nilearn==0.14.1
    cd .. && pip install resvg-py==0.5.0 nibabel==5.4.2 matplotlib
    python benchmarks/out_of_domain.py packages ood

One folder for each source below `ood`; at most `--count` pictures (40) of each, drawn with a fixed seed. All may be used
freely:

    drawings      OpenMoji on white                          CC BY-SA 4.0
    stamps        cut-out things of Tux Paint on white       GPL-2+, public domain
    paintings     Vincent van Gogh, in GCompris's `details`  public domain
    wallpapers    abstract ones of Plasma                    CC BY-SA 4.0, LGPL-3+
    screenshots   windows of GIMP, in its manual             GFDL-1.2+
    scans         slices of the MNI brain (nilearn)          free to use with its notice
    science       microscopes, telescopes and test pictures  see skimage/data/README.txt
    charts        drawn here with matplotlib                 this repository's
    documents     pages of its own licence texts, drawn here  this repository's
    noise         random pixels, at several scales           this repository's
    blank         one colour, or a gradient                  this repository's
"""

import argparse
import io
import re
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 512  # pixels of the longer side at most
SCIENCE = "cell chessboard_GRAY chessboard_RGB color hubble_deep_field ihc logo microaneurysms moon page phantom retina text"
PAINTINGS = (2, 4, 7, 8, 10, 12, 15, 19)  # places among the pictures of details.rcc in GCompris 3.1; the others are photos
Random = np.random.Generator


def found(packages: Path, pattern: str) -> Path:
    """The package that the pattern names."""
    paths = sorted(packages.glob(pattern))
    if not paths:
        raise SystemExit(f"{packages}: no {pattern} here; the head of this file says how to get it")
    return paths[-1]


def debian(packages: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """The pictures of a Debian package: path and bytes."""
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", found(packages, f"{name}_*.deb")], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(data.stdout)) as files:
        for member in sorted(files.getmembers(), key=lambda member: member.name):
            if member.isfile() and (stream := files.extractfile(member)):
                yield member.name, stream.read()


def drawn(items: Iterable[tuple[str, bytes]], count: int, seed: int = 0) -> list[tuple[str, bytes]]:
    """So many of the items, at random."""
    kept = sorted(items)
    order = np.random.default_rng(seed).permutation(len(kept))[:count]
    return [kept[place] for place in sorted(order)]


def opened(items: Iterable[tuple[str, bytes]]) -> Iterator[Image.Image]:
    for _, data in items:
        yield Image.open(io.BytesIO(data))


def drawings(packages: Path, count: int) -> Iterator[Image.Image]:
    import resvg_py

    with tarfile.open(found(packages, "openmoji-*.tgz")) as files:
        names = sorted(name for name in files.getnames() if re.search(r"color/svg/1F[3-9][0-9A-F]{2}\.svg$", name))
        for name in (names[place] for place in sorted(np.random.default_rng(0).permutation(len(names))[:count])):
            stream = files.extractfile(name)
            svg = stream.read().decode() if stream else ""
            yield Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, background="white"))))


def stamps(packages: Path, count: int) -> Iterator[Image.Image]:
    files = (item for item in debian(packages, "tuxpaint-stamps-default") if re.search(r"/stamps/.*\.png$", item[0]))
    yield from opened(drawn(files, count))


def paintings(packages: Path, count: int) -> Iterator[Image.Image]:
    data = next(data for path, data in debian(packages, "gcompris-qt-data") if path.endswith("/details.rcc"))
    pictures = []
    for match in re.finditer(b"RIFF....WEBP", data, re.DOTALL):
        end = match.start() + struct.unpack("<I", data[match.start() + 4 : match.start() + 8])[0] + 8
        picture = Image.open(io.BytesIO(data[match.start() : end]))
        if min(picture.size) > 250:  # others are the details
            pictures.append(picture)
    for place in PAINTINGS[:count]:
        yield pictures[place]


def wallpapers(packages: Path, count: int) -> Iterator[Image.Image]:
    files = (item for item in debian(packages, "plasma-workspace-wallpapers") if re.search(r"/contents/screenshot\.", item[0]))
    yield from opened(drawn(files, count))


def screenshots(packages: Path, count: int) -> Iterator[Image.Image]:
    files = debian(packages, "gimp-help-en")
    dialogs = (item for item in files if re.search(r"/images/(dialogs|using)/.*\.png$", item[0]) and len(item[1]) > 10_000)
    yield from opened(drawn(dialogs, count))


def scans(packages: Path, count: int) -> Iterator[Image.Image]:
    import nibabel

    with zipfile.ZipFile(found(packages, "nilearn-*.whl")) as files:
        name = next(name for name in files.namelist() if re.search(r"mni_icbm152_t1.*\.nii\.gz$", name))
        data = files.read(name)
    import gzip

    volume = np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(data)).dataobj, np.float32)
    volume = np.clip(255 * volume / volume.max(), 0, 255).astype(np.uint8)
    for number in range(count):
        axis = number % 3
        place = int(volume.shape[axis] * (0.25 + 0.5 * number / count))
        yield Image.fromarray(np.rot90(volume.take(place, axis)).copy()).resize((400, 400))


def science(packages: Path, count: int) -> Iterator[Image.Image]:
    with zipfile.ZipFile(found(packages, "scikit_image-*.whl")) as files:
        for name in files.namelist():
            if Path(name).parent.name == "data" and Path(name).stem in SCIENCE.split() and not name.endswith(".npy"):
                yield Image.open(io.BytesIO(files.read(name)))


def charts(_: Path, count: int) -> Iterator[Image.Image]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for number in range(count):
        rng = np.random.default_rng(number)
        figure, axes = pyplot.subplots(figsize=(5, 4))
        kind, size = number % 6, int(rng.integers(4, 12))
        if kind == 0:
            axes.plot(rng.normal(size=(60, 3)).cumsum(0))
        elif kind == 1:
            axes.bar(range(size), rng.uniform(1, 9, size), color=f"C{number % 9}")
        elif kind == 2:
            axes.scatter(*rng.normal(size=(2, 200)), c=rng.uniform(size=200))
        elif kind == 3:
            axes.pie(rng.uniform(1, 5, size), labels=[chr(65 + place) for place in range(size)])
        elif kind == 4:
            axes.imshow(rng.uniform(size=(size, size)), cmap="viridis")
        else:
            axes.hist(rng.normal(size=500), bins=size * 2)
        axes.set_title(f"Series {number}")
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=100)
        pyplot.close(figure)
        yield Image.open(picture)


def documents(_: Path, count: int) -> Iterator[Image.Image]:
    text = " ".join(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parents[1].glob("*.md")))
    words = re.findall(r"[\w.,;()]+", text)
    for number in range(count):
        rng = np.random.default_rng(number)
        page = Image.new("RGB", (420, 560), tuple(int(value) for value in rng.integers(235, 256, 3)))
        draw, size = ImageDraw.Draw(page), int(rng.integers(9, 20))
        font, place, line = ImageFont.load_default(size), int(rng.integers(len(words) - 900)), 30
        while line < 530:
            row, place = " ".join(words[place : place + 420 // (size * 4)]), place + 420 // (size * 4)
            draw.text((30, line), row, fill=(20, 20, 20), font=font)
            line += int(size * (2.6 if rng.uniform() < 0.1 else 1.4))
        yield page


def noise(_: Path, count: int) -> Iterator[Image.Image]:
    for number in range(count):
        rng, side = np.random.default_rng(number), (256, 64, 16, 6)[number % 4]
        shape = (side, side, 3) if number % 3 else (side, side)
        yield Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).resize((256, 256))


def blank(_: Path, count: int) -> Iterator[Image.Image]:
    for number in range(count):
        rng = np.random.default_rng(number)
        first, last = rng.uniform(0, 256, (2, 3))
        share = np.linspace(0, 1, 256)[:, None, None] * (number % 2)
        yield Image.fromarray(np.broadcast_to(first + share * (last - first), (256, 256, 3)).astype(np.uint8))


SOURCES: dict[str, Callable[[Path, int], Iterator[Image.Image]]] = {
    function.__name__: function
    for function in (
        drawings, stamps, paintings, wallpapers, screenshots, scans, science, charts, documents, noise, blank,
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--count", type=int, default=40, help="pictures of each source at most")
    arguments = parser.parse_args()
    for name, source in SOURCES.items():
        folder = arguments.output / name
        folder.mkdir(parents=True, exist_ok=True)
        number = 0
        for number, picture in enumerate(source(arguments.packages, arguments.count), start=1):
            if picture.mode in ("RGBA", "LA", "P"):
                picture = picture.convert("RGBA")
                white = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(white, picture)
            picture = picture.convert("RGB")
            picture.thumbnail((SIDE, SIDE))
            picture.save(folder / f"{name}-{number:02}.png")
        print(f"{name:12} {number}", flush=True)


if __name__ == "__main__":
    main()
