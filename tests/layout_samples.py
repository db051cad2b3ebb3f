"""Small samples of every layout in its true format, for the tests of data sets."""

import io
import json
import tarfile

import pytest

from conftest import draw
from showtell.data import read

DOG, MEN, CAT = "1000092795_0a1.jpg", "10002456.jpg", "2258277193_586949ec62.1.jpg"
PHOTOS = {DOG: ("red", "square"), MEN: ("blue", "cross"), CAT: ("green", "fence")}
CAPTIONS = {DOG: ("A dog runs .", 'The "old" dog, brown, runs .'), MEN: ("Two men sit .",), CAT: ("A café cat .",)}
SPLITS = {DOG: "train", MEN: "dev", CAT: "test"}


def jpeg(name):
    data = io.BytesIO()
    draw(*PHOTOS[name]).save(data, "JPEG")
    return data.getvalue()


def put(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def photos(folder=""):
    return {f"{folder}{name}": jpeg(name) for name in PHOTOS}


def lines(*values):
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def flickr8k():
    tokens = "".join(f"{name}#{k}\t{text}\n" for name, texts in CAPTIONS.items() for k, text in enumerate(texts))
    lists = {"train": [DOG], "dev": [MEN], "test": [CAT]}
    return {
        "Flickr8k_text/Flickr8k.token.txt": tokens,
        **{f"Flickr8k_text/Flickr_8k.{split}Images.txt": "\n".join(names) + "\n" for split, names in lists.items()},
        "Flickr8k_text/Flickr8k.lemma.token.txt": tokens,
        "Flickr8k_text/readme.txt": "If you use this corpus ...\n",
        **photos("Flicker8k_Dataset/"),
    }


def captions_txt():
    rows = f'{DOG},A dog runs .\n{DOG},"The ""old"" dog, brown, runs ."\n{MEN},Two men sit .\n{CAT},A café cat .\n'
    return {"captions.txt": "image,caption\n" + rows, **photos("Images/")}


def flickr30k():
    # The last row as in the file itself: a bar is missing.
    rows = f'{DOG}| 0| A dog runs .\n{DOG}| 1| The "old" dog, brown, runs .\n{MEN}| 0| Two men sit .\n{CAT}| 4   A café cat .\n'
    results = "image_name| comment_number| comment\n" + rows
    return {"results.csv": results, "flickr30k_images/results.csv": results, **photos("flickr30k_images/")}


def token():
    files = flickr8k()
    return {"results_20130124.token": files["Flickr8k_text/Flickr8k.token.txt"], **photos("flickr30k-images/")}


def karpathy(filepath=None):
    def image(number, name, split):
        texts = [{"tokens": t.lower().split(), "raw": t, "imgid": number, "sentid": number} for t in CAPTIONS[name]]
        where = {"filepath": filepath, "cocoid": 100 + number} if filepath else {}
        return {"sentids": [number], "imgid": number, "sentences": texts, "split": split, "filename": name, **where}

    return {
        "images": [image(0, DOG, "restval" if filepath else "train"), image(1, MEN, "val"), image(2, CAT, "test")],
        "dataset": "coco" if filepath else "flickr8k",
    }


def coco():
    def file(*names):
        images = [
            {"license": 3, "file_name": name, "coco_url": "http://x/y", "height": 64, "width": 64, "id": 7 + i}
            for i, name in enumerate(names)
        ]
        texts = [(image["id"], text) for image in images for text in CAPTIONS[image["file_name"]]]
        return {
            "info": {"year": 2017},
            "images": images,
            "licenses": [],
            "annotations": [{"image_id": key, "id": i, "caption": text} for i, (key, text) in enumerate(texts)],
        }

    return {
        "annotations/captions_train2017.json": file(DOG),
        "annotations/captions_val2017.json": file(MEN),
        "annotations/captions_test2017.json": file(CAT),
        "annotations/instances_val2017.json": "[far too many outlines",
        **{f"{split}2017/{name}": jpeg(name) for split, name in (("train", DOG), ("val", MEN), ("test", CAT))},
    }


def table(delimiter):
    def row(*cells):
        if delimiter == ",":
            return ",".join('"' + cell.replace('"', '""') + '"' for cell in cells) + "\r\n"
        return delimiter.join(cells) + "\n"

    return row("filename", "caption", "split") + "".join(
        row(f"photos/{name}", text, {"dev": "validation"}.get(SPLITS[name], SPLITS[name]))
        for name, texts in CAPTIONS.items()
        for text in texts
    )


def parquet():
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    data = io.BytesIO()
    rows = [{"image_path": n, "captions": list(CAPTIONS[n]), "split": SPLITS[n]} for n in PHOTOS]
    parquet.write_table(pa.Table.from_pylist(rows), data)
    return {"captions.parquet": data.getvalue(), **photos("p/")}


def sidecar():
    texts = {name.rsplit(".", 1)[0]: "\n".join(texts) + "\n" for name, texts in CAPTIONS.items()}
    files = {f"{ {'dev': 'val'}.get(SPLITS[name], SPLITS[name]) }/{name}": jpeg(name) for name in PHOTOS}
    files |= {f"{path.rsplit('.', 1)[0]}.txt": texts[path.split("/")[1].rsplit(".", 1)[0]] for path in list(files)}
    return files


def imagefolder(suffix):
    files = {}
    for name, split in SPLITS.items():
        folder = {"dev": "validation"}.get(split, split)
        files[f"{folder}/{name}"] = jpeg(name)
        if suffix == "jsonl":
            rows = lines(*({"file_name": name, "text": text} for text in CAPTIONS[name]))
        else:
            rows = "file_name,text\n" + "".join('{},"{}"\n'.format(name, t.replace('"', '""')) for t in CAPTIONS[name])
        files[f"{folder}/metadata.{suffix}"] = rows
    return files


def tar(files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def webdataset():
    """img2dataset's own: numbers for names, one caption, statistics beside the tars."""
    files = {}
    for number, name in enumerate(PHOTOS):
        key = f"{number:09}"
        about = {"url": f"http://x/{name}", "caption": CAPTIONS[name][0], "key": key, "status": "success", "width": 64}
        files |= {f"{key}.jpg": jpeg(name), f"{key}.txt": CAPTIONS[name][0].encode(), f"{key}.json": json.dumps(about).encode()}
    files["000000003.json"] = b'{"status": "failed_to_download", "caption": "gone", "key": "000000003"}'
    return {"00000.tar": tar(files), "00000_stats.json": {"count": 4, "successes": 3}}


SAMPLES = {
    "flickr8k": ("flickr8k", flickr8k),
    "captions.txt": ("captions-txt", captions_txt),
    "flickr30k results.csv": ("flickr30k", flickr30k),
    "flickr30k token file": ("token", token),
    "karpathy flickr": ("karpathy", lambda: {"dataset_flickr8k.json": karpathy(), **photos("images/")}),
    "karpathy coco": ("karpathy", lambda: {"dataset_coco.json": karpathy("val2014"), **photos("val2014/")}),
    "coco": ("coco", coco),
    "csv": ("table", lambda: {"all.csv": table(","), **photos("photos/")}),
    "tsv": ("table", lambda: {"all.tsv": table("\t").replace('"', '"'), **photos("photos/")}),
    "jsonl": (
        "table",
        lambda: {
            "data.jsonl": lines(*({"image": f"x/{n}", "captions": CAPTIONS[n], "split": SPLITS[n]} for n in PHOTOS)),
            **photos("x/"),
        },
    ),
    "parquet": ("table", parquet),
    "sidecars": ("sidecar", sidecar),
    "imagefolder jsonl": ("imagefolder", lambda: imagefolder("jsonl")),
    "imagefolder csv": ("imagefolder", lambda: imagefolder("csv")),
    "webdataset": ("webdataset", webdataset),
}
WITHOUT_SPLITS = {"captions.txt", "flickr30k results.csv", "flickr30k token file", "webdataset"}


def captions_of(folder, **options):
    return {s.image: s.captions for s in read(folder, split_seed=None, **options).samples}
