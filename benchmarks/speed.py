"""How fast captioning is on this machine: one command, every comparison paired, JSON and a table out.

    python benchmarks/speed.py PHOTOS --out DIR [--sections rates,large,...] [--peers-python PYTHON] [--scale 1.0]

PHOTOS is a folder of photos, or a data set, of which the dev photos are taken. They are resized to 500x375 and to 4000x3000,
once, and kept in DIR beside the results: DIR/speed.json and DIR/speed.md. Each section is written when it is done, and one that
fails is reported and the others go on; a later run with the same DIR does what is missing, and `--again` does all anew.

    rates      JPEG files of 500x375 to a JSONL file against the encoder alone, at the same threads and batch: by beam size,
               threads and batch size
    large      the same at 4000x3000
    cold       one photo by the command: time and peak memory of the whole process, and what is imported on the way
    memory     peak memory of the command at 1,000 and at 20,000 photos
    profile    where the time goes, stage by stage and operator by operator, on one thread
    peers      other captioners on the same photos (needs `--peers-python`, an interpreter with `showtell[bench]`)

Contenders take turns, round by round, each round in another order. What is compared is compared within a round; the median over
the rounds is given, with the lowest and the highest. `--scale` makes all sections larger or smaller; 1.0 takes about a quarter
of an hour on two slow cores, most of it for the 20,000 photos.
"""

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime
from PIL import Image

import showtell
from showtell.archive.sinks import JsonlSink, to_line
from showtell.archive.sources import photos as photo_sources
from showtell.arrays import Array
from showtell.data import read as read_dataset
from showtell.data import recognise
from showtell.image import read_photo, read_rgb
from showtell.runtime.captioner import SEARCHED_PHOTOS
from showtell.runtime.cpu import available_cpus
from showtell.runtime.sessions import OnnxEncoder
from showtell.types import ConfidenceOptions, Record

MEDIUM, LARGE = (500, 375), (4000, 3000)
BATCH, BEAM = 8, 3
Json = dict[str, Any]


class Bench:
    """The photos, the model and the size of a run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.out: Path = arguments.out
        self.scale: float = arguments.scale
        self.rounds: int = arguments.rounds
        self.peers_python: str | None = arguments.peers_python
        self.cpus = available_cpus()
        self.captioners: dict[int, showtell.Captioner] = {}
        self._source: Path = arguments.photos

    def count(self, photos: int) -> int:
        """So many photos at scale 1."""
        return max(BATCH, round(photos * self.scale))

    def captioner(self, threads: int) -> showtell.Captioner:
        """The embedded model on so many threads, loaded once."""
        if threads not in self.captioners:
            self.captioners[threads] = showtell.load(threads=threads)
        return self.captioners[threads]

    def photos(self, size: tuple[int, int], count: int) -> Path:
        """A folder of `count` JPEGs of that size, made when first asked for; photos repeat where there are too few."""
        folder = self.out / f"{size[0]}x{size[1]}"
        made = folder / "made"
        made.mkdir(parents=True, exist_ok=True)
        different = min(count, 256 if size == MEDIUM else 16)
        for number, data in enumerate(self._originals(different)):
            path = made / f"{number:05}.jpg"
            if not path.exists():
                image = read_rgb(data).resize(size, Image.Resampling.LANCZOS)
                image.save(path.with_suffix(".part"), "JPEG", quality=90)
                path.with_suffix(".part").rename(path)
        originals = sorted(made.glob("*.jpg"))
        links = folder / str(count)
        links.mkdir(exist_ok=True)
        for number in range(count):
            link = links / f"{number:06}.jpg"
            if not link.exists():
                os.link(originals[number % len(originals)], link)
        return links

    def _originals(self, count: int) -> Iterator[bytes]:
        if recognise(self._source):
            dataset = read_dataset(self._source)
            samples = dataset.split("dev")
            chosen = [samples[place % len(samples)].image for place in range(count)]
            return (dataset.photos.read(name) for name in chosen)
        paths = list(photo_sources([str(self._source)], sys.stdin.buffer))
        if not paths:
            raise SystemExit(f"{self._source}: no photos here")
        return (Path(paths[place % len(paths)]).read_bytes() for place in range(count))

    def caption(self, folder: Path, threads: int, batch: int = BATCH, beam: int = BEAM) -> None:
        """What `showtell caption FOLDER --output FILE.jsonl` does once it has started."""
        captioner = self.captioner(threads)
        photos = list(photo_sources([str(folder)], sys.stdin.buffer))
        with (self.out / "captions.jsonl").open("w") as stream:
            sink = JsonlSink(stream)
            for record in captioner.records(photos, captioner.options(beam_size=beam), batch_size=batch):
                if record.error_code:
                    raise RuntimeError(record.error_message)
                sink.write(record)

    def inputs(self, folder: Path, batch: int) -> list[Array]:
        """The folder's photos as batches of model input, ready for the encoder."""
        preprocessing = self.captioner(self.cpus).bundle.preprocessing
        pixels = [read_photo(path, preprocessing).pixels for path in sorted(folder.iterdir())]
        starts = range(0, len(pixels), batch)
        return [preprocessing.normalize(np.stack(pixels[start : start + batch])) for start in starts]


def interleave(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round; one turn of each goes before and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds + 1):
        order = names[number % len(names) :] + names[: number % len(names)]
        for name in order:
            started = time.perf_counter()
            contenders[name]()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def spread(values: Sequence[float], digits: int = 2) -> Json:
    """Median, lowest and highest."""
    return {"median": round(statistics.median(values), digits), "range": [round(f(values), digits) for f in (min, max)]}


def against_encoder(bench: Bench, folder: Path, settings: Sequence[tuple[int, int, int]]) -> Json:
    """End to end and encoder alone for (threads, batch, beam).

    The encoder alone is run in both ways that there are, a session that uses all threads for one batch and a batch on each
    thread, and the better one of a round is what is compared with.
    """
    count = len(list(folder.iterdir()))
    contenders: dict[str, Callable[[], Any]] = {}
    sessions: dict[int, OnnxEncoder] = {}
    inputs: dict[int, list[Array]] = {}
    for threads, batch, beam in settings:
        captioner = bench.captioner(threads)
        if batch not in inputs:
            inputs[batch] = bench.inputs(folder, batch)
        batches = inputs[batch]
        if threads not in sessions:
            sessions[threads] = OnnxEncoder(captioner.bundle.folder, threads, "cpu")

        def end_to_end(threads: int = threads, batch: int = batch, beam: int = beam) -> None:
            bench.caption(folder, threads, batch, beam)

        def whole(session: OnnxEncoder = sessions[threads], batches: list[Array] = batches) -> None:
            for one in batches:
                session(one)

        def side_by_side(
            encoder: OnnxEncoder = captioner.encoder, batches: list[Array] = batches, threads: int = threads
        ) -> None:
            with ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(lambda one: len(encoder(one)), batches):
                    pass

        contenders[f"end {threads} {batch} {beam}"] = end_to_end
        contenders[f"encoder {threads} {batch} whole"] = whole
        if threads > 1:
            contenders[f"encoder {threads} {batch} side by side"] = side_by_side
    seconds = interleave(contenders, bench.rounds)
    rows = []
    for threads, batch, beam in settings:
        ends = seconds[f"end {threads} {batch} {beam}"]
        encoders = [times for name, times in seconds.items() if name.startswith(f"encoder {threads} {batch} ")]
        best = [min(times) for times in zip(*encoders, strict=True)]
        rows.append(
            {
                "threads": threads,
                "batch": batch,
                "beam": beam,
                "photos_per_second": spread([count / value for value in ends]),
                "encoder_photos_per_second": spread([count / value for value in best]),
                "share_of_encoder": spread([alone / end for alone, end in zip(best, ends, strict=True)], 3),
            }
        )
    ways = {name: spread([count / value for value in times]) for name, times in seconds.items() if name.startswith("encoder")}
    return {"photos": count, "rounds": bench.rounds, "rows": rows, "encoder_alone": ways}


def rates(bench: Bench) -> Json:
    """By beam size, threads and batch size at 500x375."""
    most = bench.cpus
    settings = [(most, BATCH, beam) for beam in (BEAM, 1, 5)] + [(most, batch, BEAM) for batch in (1, 4, 16)]
    if most > 1:
        settings += [(1, BATCH, beam) for beam in (BEAM, 5)]
    return against_encoder(bench, bench.photos(MEDIUM, bench.count(160)), settings)


def large(bench: Bench) -> Json:
    """At 4000x3000."""
    return against_encoder(bench, bench.photos(LARGE, bench.count(64)), [(bench.cpus, BATCH, BEAM)])


# The kernel counts into a process's peak what the one that started it had in memory, so a small one starts it.
LAUNCHER = """
import os, sys, time
started = time.perf_counter()
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print("", time.perf_counter() - started, usage.ru_maxrss, sep="\\n", file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def command(*arguments: str | Path, flags: Sequence[str] = ()) -> tuple[float, float, str]:
    """Seconds, peak memory in 10^6 bytes and standard error of one run of the command."""
    showtell = [sys.executable, *flags, "-m", "showtell", *map(str, arguments)]
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *showtell], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    *errors, seconds, peak = done.stderr.splitlines()
    if done.returncode:
        raise RuntimeError(f"showtell {arguments[0]} ended with {done.returncode}: {' '.join(errors)[-500:]}")
    return float(seconds), int(peak) * (1 if sys.platform == "darwin" else 1024) / 1e6, "\n".join(errors)


def cold(bench: Bench) -> Json:
    """One photo by the command."""
    photo = next(bench.photos(MEDIUM, BATCH).iterdir())
    command("caption", photo)  # so that files are in memory
    runs = [command("caption", photo) for _ in range(max(3, round(15 * bench.scale)))]
    imports: dict[str, int] = defaultdict(int)
    for own, module in re.findall(
        r"import time:\s+(\d+) \|\s+\d+ \|\s*(\S+)", command("caption", photo, flags=["-X", "importtime"])[2]
    ):
        imports[module.partition(".")[0]] += int(own)
    slowest = sorted(imports.items(), key=lambda item: -item[1])[:8]
    return {
        "runs": len(runs),
        "seconds": spread([run[0] for run in runs]),
        "peak_megabytes": spread([run[1] for run in runs], 0),
        "import_milliseconds": {name: round(own / 1000, 1) for name, own in [*slowest, ("all", sum(imports.values()))]},
    }


def memory(bench: Bench) -> Json:
    """Peak memory of the command at 1,000 photos and at 20 times as many."""
    few = bench.count(1000)
    peaks = {}
    for count in (few, 20 * few):
        output = bench.out / "captions.jsonl"
        seconds, peak, _ = command("caption", bench.photos(MEDIUM, count), "--output", output, "--overwrite")
        peaks[str(count)] = {"megabytes": round(peak, 1), "photos_per_second": round(count / seconds, 1)}
    low, high = (value["megabytes"] for value in peaks.values())
    return {"photos": peaks, "growth_megabytes": round(high - low, 1)}


def profile(bench: Bench) -> Json:
    """Milliseconds a photo of each stage, one after the other on one thread, and of the operators of encoder and step graph."""
    captioner = bench.captioner(1)
    folder = bench.photos(MEDIUM, bench.count(64))
    spent: dict[str, float] = defaultdict(float)

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                spent[stage] += time.perf_counter() - started

        return run

    decoder = captioner.decoder
    paths = sorted(folder.iterdir())
    wants = captioner.bundle.preprocessing
    options = captioner.options(beam_size=BEAM)
    ids = captioner.bundle.vocabulary.search_tokens()
    describe = partial(captioner.describe, options=options, confidence=ConfidenceOptions())
    for _ in range(2):  # the first time is not counted
        spent.clear()
        pixels = [timed("reading and resizing", read_photo)(path, wants).pixels for path in paths]
        features = []
        for start in range(0, len(paths), BATCH):
            normal = timed("normalising", wants.normalize)(np.stack(pixels[start : start + BATCH]))
            features.append(timed("encoder", captioner.encoder)(normal))
        with (
            patch.object(decoder, "start", timed("decoder: once a photo", decoder.start)),
            patch.object(decoder, "step", timed("decoder: steps", decoder.step)),
            patch.object(decoder, "reorder", timed("decoder: reordering the state", decoder.reorder)),
        ):
            together = SEARCHED_PHOTOS // BATCH
            found = [
                described
                for start in range(0, len(features), together)
                for described in timed("search, words and confidence", describe)(
                    np.concatenate(features[start : start + together])
                )
            ]
        for path, described in zip(paths, found, strict=True):
            timed("JSON", to_line)(Record.of(str(path), described, *MEDIUM, captioner.bundle.name))
    spent["search, words and confidence"] -= sum(seconds for stage, seconds in spent.items() if stage.startswith("decoder"))
    whole = sum(spent.values())
    stages = {
        stage: {"milliseconds_per_photo": round(seconds * 1e3 / len(paths), 3), "share": round(seconds / whole, 4)}
        for stage, seconds in sorted(spent.items(), key=lambda item: -item[1])
    }
    normal = bench.inputs(folder, BATCH)[0]
    operators = {"encoder": operator_times(bench, "encoder.onnx", [{"pixels": normal}] * 4)}
    steps: list[dict[str, Array]] = []
    state = captioner.decoder.start(np.concatenate(features[:4]))
    photos = len(next(iter(state.prepared.values())))
    state = captioner.decoder.reorder(state, np.arange(photos), np.zeros((photos, BEAM), np.int64))
    tokens = np.full((photos, BEAM), ids.begin)
    for _ in range(6):
        steps.append({"tokens": tokens, **state.prepared, **state.recurrent})
        step = captioner.decoder.step(tokens, state)
        tokens, state = step.log_probs.argmax(-1), step.state
    operators["step"] = operator_times(bench, "step.onnx", steps)
    return {"photos": len(paths), "beam": BEAM, "stages": stages, "operators": operators}


def operator_times(bench: Bench, file: str, inputs: Sequence[dict[str, Array]]) -> dict[str, float]:
    """The share of the graph's time that each kind of operator takes, by onnxruntime's own profile."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(bench.out / "onnxruntime")
    options.log_severity_level = 3
    path = bench.captioner(1).bundle.folder / file
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for given in inputs:
        session.run(None, given)
    report = Path(session.end_profiling())
    events = json.loads(report.read_text())
    report.unlink()
    nodes: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes[event["args"]["op_name"], event["name"]].append(event["dur"])
    times: dict[str, float] = defaultdict(float)
    for (operator, _), durations in nodes.items():
        times[operator] += statistics.median(durations)  # other work on the machine may stop one run for long
    whole = sum(times.values())
    return {name: round(value / whole, 4) for name, value in sorted(times.items(), key=lambda item: -item[1])[:10]}


def peers(bench: Bench) -> Json:
    """Other captioners, each between two runs of ours."""
    assert bench.peers_python is not None
    folder = bench.photos(MEDIUM, bench.count(96))
    ours = len(list(folder.iterdir()))
    found: Json = {}
    bench.caption(folder, bench.cpus)
    for peer in ("keras", "blip", "vit-gpt2"):
        rate, times = [], []
        for _ in range(max(1, round(2 * min(bench.scale, 1)))):
            started = time.perf_counter()
            bench.caption(folder, bench.cpus)
            before = time.perf_counter() - started
            run = subprocess.run(
                [bench.peers_python, Path(__file__).with_name("peers.py"), peer, folder, "--threads", str(bench.cpus)],
                check=False,
                capture_output=True,
                text=True,
            )
            if run.returncode:
                found[peer] = {"error": run.stderr[-500:]}
                break
            figures = json.loads(run.stdout.splitlines()[-1])
            started = time.perf_counter()
            bench.caption(folder, bench.cpus)
            mine = 2 * ours / (before + time.perf_counter() - started)
            theirs = figures["photos"] / figures["seconds"]
            rate.append((mine, theirs))
            times.append(mine / theirs)
        else:
            found[peer] = {
                "photos_per_second": spread([theirs for _, theirs in rate], 3),
                "ours": spread([mine for mine, _ in rate]),
                "times_faster": spread(times, 1),
            }
        print(peer, json.dumps(found[peer]), flush=True)
    if all("error" in value for value in found.values()):
        raise RuntimeError(f"no peer ran: {found}")
    return {"beam": BEAM, "tokens_of_peers": 12, "peers": found}


SECTIONS: dict[str, Callable[[Bench], Json]] = {
    "rates": rates,
    "large": large,
    "cold": cold,
    "profile": profile,
    "peers": peers,
    "memory": memory,
}


def machine() -> Json:
    """Processor and versions."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*:\s*(.*)", text)
    flags = set((re.search(r"flags\s*:\s*(.*)", text) or [""])[0].split())
    return {
        "processor": model[1] if model else platform.processor() or platform.machine(),
        "cpus": available_cpus(),
        "instructions": [flag for flag in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8") if flag in flags],
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "showtell": showtell.__version__,
        "date": datetime.date.today().isoformat(),
    }


def table(results: Json) -> str:
    """The results as Markdown."""
    about = results["machine"]
    lines = [
        f"{about['processor']}, {about['cpus']} CPUs ({', '.join(about['instructions']) or 'no vector instructions listed'}), "
        f"Python {about['python']}, onnxruntime {about['onnxruntime']}, showtell {about['showtell']}, {about['date']}",
    ]

    def add(title: str, head: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
        lines.extend(["", f"### {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"])
        lines.extend(f"| {' | '.join(map(str, row))} |" for row in rows)

    def shown(value: Json) -> str:
        low, high = value["range"]
        return f"{value['median']:g} ({low:g} to {high:g})"

    for name, title in (("rates", "500x375 JPEG files to JSONL"), ("large", "4000x3000 JPEG files to JSONL")):
        if section := results["sections"].get(name):
            head = ("threads", "batch", "beam", "photos/s", "encoder alone, photos/s", "share of it")
            keys = ("photos_per_second", "encoder_photos_per_second", "share_of_encoder")
            rows = ([row["threads"], row["batch"], row["beam"], *(shown(row[key]) for key in keys)] for row in section["rows"])
            add(f"{title} ({section['photos']} photos, {section['rounds']} rounds)", head, rows)
            add(
                "The encoder alone",
                ("threads, batch, way", "photos/s"),
                ((k, shown(v)) for k, v in section["encoder_alone"].items()),
            )
    if section := results["sections"].get("cold"):
        rows = [("seconds", shown(section["seconds"])), ("peak MB", shown(section["peak_megabytes"]))]
        rows += [(f"importing {name}, ms", value) for name, value in section["import_milliseconds"].items()]
        add(f"One photo by the command ({section['runs']} runs)", ("", ""), iter(rows))
    if section := results["sections"].get("memory"):
        rows = [(count, value["megabytes"], value["photos_per_second"]) for count, value in section["photos"].items()]
        add(f"Memory (grows by {section['growth_megabytes']} MB)", ("photos", "peak MB", "photos/s, all counted"), iter(rows))
    if section := results["sections"].get("profile"):
        stages = section["stages"].items()
        rows = [(stage, value["milliseconds_per_photo"], f"{value['share']:.1%}") for stage, value in stages]
        add(f"Where the time goes (one thread, beam {section['beam']})", ("stage", "ms a photo", "share"), iter(rows))
        for graph, times in section["operators"].items():
            add(f"Operators of the {graph}", ("operator", "share"), ((name, f"{value:.1%}") for name, value in times.items()))
    if section := results["sections"].get("peers"):
        rows = [
            (peer, value["error"].splitlines()[-1], "", "")
            if "error" in value
            else (peer, shown(value["photos_per_second"]), shown(value["ours"]), shown(value["times_faster"]))
            for peer, value in section["peers"].items()
        ]
        add("Peers", ("peer", "photos/s", "showtell, photos/s", "times faster"), iter(rows))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the sections that are asked for and not yet done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="which, with commas between them")
    parser.add_argument("--again", action="store_true", help="also those that DIR has already")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers-python", metavar="PYTHON")
    arguments = parser.parse_args()
    chosen = arguments.sections.split(",")
    if unknown := set(chosen) - set(SECTIONS):
        parser.error(f"unknown section {sorted(unknown)[0]!r}; known are {', '.join(SECTIONS)}")
    bench = Bench(arguments)
    bench.out.mkdir(parents=True, exist_ok=True)
    file = bench.out / "speed.json"
    results: Json = json.loads(file.read_text()) if file.exists() else {"sections": {}}
    results["machine"] = machine()
    failed = False
    for name in chosen:
        if name in results["sections"] and not arguments.again:
            print(f"{name}: done already")
            continue
        if name == "peers" and arguments.peers_python is None:
            print("peers: left out without --peers-python, an environment with `pip install 'showtell[bench]'`")
            continue
        started = time.perf_counter()
        try:
            section = SECTIONS[name](bench)
        except Exception:
            failed = True
            print(f"{name} failed:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            continue
        section["took_seconds"] = round(time.perf_counter() - started, 1)
        results["sections"][name] = section
        file.write_text(json.dumps(results, indent=1) + "\n")
        (bench.out / "speed.md").write_text(table(results))
        print(f"{name}: {section['took_seconds']} s", flush=True)
    print(table(results))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
