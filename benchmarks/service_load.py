"""The service under load, beside the same model captioning the same photos offline, on the same machine in the same run.

    python benchmarks/service_load.py --seconds 60 --json service.json
    python benchmarks/service_load.py --seconds 20 --memory-mb 512        (needs root and a memory cgroup)

The phases: offline, one photo at a time, 32 clients at once, offline again, ten times as many clients, hostile uploads,
10,000 tiny requests. Clients and server share the machine, so the clients' processor time counts against the service. A client
that is told to come back later does so after the seconds that it was told.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import signal
import statistics
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples" / "photos"
TIMEOUT = 120.0
HEAD = b"POST /v1/captions HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"


def offline(photos: list[Path], seconds: float, threads: int, batch_size: int) -> dict[str, float]:
    """Photos a second through `Captioner.records`, as `showtell caption` does it; and the model's time for one photo."""
    import showtell

    captioner = showtell.load(threads=threads)
    options = captioner.options()
    list(captioner.records(photos[:batch_size], batch_size=batch_size))

    def endless() -> Iterator[Path]:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            yield from photos

    began = time.perf_counter()
    count = sum(1 for _ in captioner.records(endless(), options, batch_size=batch_size))
    rate = count / (time.perf_counter() - began)
    from showtell.image import read_photo

    alone: list[float] = []
    end = time.perf_counter() + seconds
    while len(alone) < 50 and time.perf_counter() < end:
        pixels = read_photo(photos[len(alone) % len(photos)], captioner.bundle.preprocessing).pixels[None]
        began = time.perf_counter()
        captioner.search(captioner.features(pixels), options)
        alone.append(time.perf_counter() - began)
    return {"photos_per_second": rate, "model_p50_ms": 1000 * statistics.median(alone)}


@dataclass
class Tally:
    """What clients saw."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)
    processor: float = field(default_factory=time.process_time)

    def add(self, status: str, seconds: float) -> None:
        self.statuses[status] += 1
        self.seconds.setdefault(status, []).append(seconds)

    def summary(self) -> dict[str, Any]:
        took = time.perf_counter() - self.began
        result: dict[str, Any] = {"seconds": took, "statuses": dict(self.statuses)}
        result["answered_per_second"] = self.statuses["200"] / took
        result["clients_processor_seconds"] = time.process_time() - self.processor
        for status, values in sorted(self.seconds.items()):
            p50, p95 = np.percentile(values, (50, 95))
            result[f"ms_{status}"] = {"p50": 1000 * p50, "p95": 1000 * p95, "max": 1000 * max(values)}
        return result


class Client:
    """One connection that is kept open, to one server on this machine."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes, kind: str = "image/jpeg") -> tuple[str, dict[str, str], bytes]:
        """Status (or the kind of failure), headers and body of the answer."""
        try:
            async with asyncio.timeout(TIMEOUT):
                if self.streams is None:
                    self.streams = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
                reader, writer = self.streams
                head = f"Host: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(b"POST /v1/captions HTTP/1.1\r\n" + head.encode() + body)
                with contextlib.suppress(ConnectionError):  # it may have answered before it read all
                    await writer.drain()
                status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines)
                answer = await reader.readexactly(int(headers.get("content-length", 0)))
                if headers.get("connection") == "close":
                    self.close()
                return status.split()[1], headers, answer
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.close()
            return type(error).__name__, {}, b""

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


async def load(port: int, bodies: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """So many clients, each sending one photo after the other."""
    tally = Tally()
    end = time.perf_counter() + seconds

    async def go(number: int) -> None:
        client = Client(port)
        turn = number
        while time.perf_counter() < end:
            began = time.perf_counter()
            status, headers, _ = await client.post(bodies[turn % len(bodies)])
            tally.add(status, time.perf_counter() - began)
            turn += 1
            if status == "503":
                await asyncio.sleep(float(headers.get("retry-after", 1)))
            elif status != "200":
                await asyncio.sleep(0.1)
        client.close()

    await asyncio.gather(*(go(number) for number in range(clients)))
    return tally.summary()


async def one_at_a_time(port: int, bodies: list[bytes], count: int, seconds: float) -> dict[str, Any]:
    """So many photos, one after the other; fewer where the time is over."""
    tally, client = Tally(), Client(port)
    for number in range(count):
        if time.perf_counter() > tally.began + seconds:
            break
        began = time.perf_counter()
        status, _, _ = await client.post(bodies[number % len(bodies)])
        tally.add(status, time.perf_counter() - began)
    client.close()
    return tally.summary()


async def tiny(port: int, count: int) -> dict[str, Any]:
    """So many requests of one byte each, over 32 connections."""
    tally = Tally()
    left = iter(range(count))

    async def go() -> None:
        client = Client(port)
        for _ in left:
            began = time.perf_counter()
            status, _, _ = await client.post(b"x")
            tally.add(status, time.perf_counter() - began)
        client.close()

    await asyncio.gather(*(go() for _ in range(32)))
    return tally.summary()


async def hostile(port: int, seconds: float, bodies: list[bytes]) -> dict[str, Any]:
    """Uploads that want much memory or time, all at once; and what an ordinary client sees meanwhile."""
    found: dict[str, Any] = {}

    async def send(name: str, body: bytes, kind: str = "application/octet-stream") -> None:
        status, _, answer = await Client(port).post(body, kind)
        parts = json.loads(answer) if answer else {}
        result = parts.get("results", [{}])[0]
        found[name] = (
            f"{status} {(parts.get('error') or result.get('error') or {}).get('code', result.get('status', ''))}".strip()
        )

    async def stall(head: bytes) -> None:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head)
            await asyncio.sleep(seconds)
            writer.close()

    async def endless() -> None:
        """1 GB in chunks, whose sum nobody announces."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        with contextlib.suppress(OSError):
            for _ in range(1024):
                writer.write(b"100000\r\n" + bytes(2**20) + b"\r\n")
                sent += 1
                await writer.drain()
        status = b""
        with contextlib.suppress(OSError):
            status = await reader.read(12)
        found["1 GB in chunks"] = f"{status.decode()[9:] or 'connection closed'} after {sent} MB were sent"
        writer.close()

    async def declared() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"Content-Length: 1073741824\r\n\r\n")
        found["1 GB declared"] = (await reader.read(12)).decode()[9:]
        writer.close()

    head = HEAD + b"Content-Length: 1000000\r\n"
    stalled = [asyncio.create_task(stall(head)) for _ in range(100)]
    stalled += [asyncio.create_task(stall(head + b"\r\n" + bytes(100_000))) for _ in range(100)]
    pictures = [asyncio.create_task(send(name, body)) for name, body in heavy().items() for _ in range(3)]
    others = [asyncio.create_task(endless()), asyncio.create_task(declared())]
    found["200 slow uploads, ordinary clients meanwhile"] = (await load(port, bodies, 4, seconds))["statuses"]
    await asyncio.gather(*pictures, *others, *stalled)
    return found


def heavy() -> dict[str, bytes]:
    """Pictures at the limits of what is decoded, and beyond."""
    rng = np.random.default_rng(0)

    def picture(width: int, height: int, grain: int = 16) -> Image.Image:
        small = rng.integers(0, 256, (height // grain, width // grain, 3), dtype=np.uint8)
        return Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST)

    def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    large = picture(3840, 2160)
    deep = Image.fromarray(np.asarray(large.convert("L")).astype(np.float32))
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    impossible = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return {
        "PNG 50,000 x 50,000": impossible,
        "PNG with transparency, 3840 x 2160": encode(large.convert("RGBA"), "PNG"),
        "WebP lossless, 3840 x 2160": encode(large.convert("RGBA"), "WEBP", lossless=True, method=0, quality=0),
        "TIFF of floats, 3840 x 2160": encode(deep, "TIFF", compression="tiff_adobe_deflate"),
        "progressive JPEG 4000 x 3000": encode(picture(4000, 3000), "JPEG", progressive=True, subsampling=0, quality=75),
        "JPEG 10,000 x 10,000": encode(picture(10_000, 10_000, 100), "JPEG", quality=50),
    }


class Limit:
    """A memory cgroup, of either version, that kills what takes more; None where there is no right to make one."""

    def __init__(self, megabytes: int) -> None:
        v1 = Path("/sys/fs/cgroup/memory")
        self.v1 = v1.is_dir()
        self.folder = (v1 if self.v1 else Path("/sys/fs/cgroup")) / f"showtell-bench-{os.getpid()}"
        self.folder.mkdir()
        name = "memory.limit_in_bytes" if self.v1 else "memory.max"
        (self.folder / name).write_text(str(megabytes * 2**20))

    def enter(self) -> None:
        """Puts the calling process in; between fork and exec."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def read(self) -> dict[str, int]:
        """Bytes at most, page cache included, as the kernel counted them; and how often it had to reclaim."""
        names = ("memory.max_usage_in_bytes", "memory.failcnt") if self.v1 else ("memory.peak",)
        return {name: int((self.folder / name).read_text()) for name in names if (self.folder / name).exists()}

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def memory(pid: int) -> dict[str, float]:
    """Resident megabytes (2**20) now and at most."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {"now": int(lines["VmRSS"].split()[0]) / 1024, "peak": int(lines["VmHWM"].split()[0]) / 1024}


def measure(arguments: argparse.Namespace, photos: list[Path], limit: Limit | None) -> dict[str, Any]:
    bodies = [path.read_bytes() for path in photos]
    seconds = arguments.seconds
    shared = ["--threads", str(arguments.threads), "--batch-size", str(arguments.batch_size)]

    def offline_rate() -> dict[str, float]:
        command = [
            sys.executable,
            __file__,
            "--offline",
            "--seconds",
            str(seconds / 2),
            "--photos",
            str(arguments.photos),
            *shared,
        ]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)  # type: ignore[no-any-return]

    command = [sys.executable, "-m", "showtell", "serve", "--port", "0", *shared]
    if limit:
        print(f"memory limit: {arguments.memory_mb} MB", file=sys.stderr)
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=limit.enter if limit else None)
    result: dict[str, Any] = {}
    try:
        assert server.stderr is not None
        line = server.stderr.readline()
        if "http://" not in line:
            raise SystemExit(f"the server did not start: {line}{server.stderr.read()}")
        port = int(line.rsplit(":", 1)[1])
        peaks = {"started": memory(server.pid)}

        def phase(name: str, work: Any) -> None:
            print(f"{name} ...", file=sys.stderr)
            result[name] = asyncio.run(work)
            peaks[name] = memory(server.pid)

        before = offline_rate()
        phase("one photo at a time", one_at_a_time(port, bodies, 50, seconds))
        if refused := set(result["one photo at a time"]["statuses"]) - {"200"}:
            raise SystemExit(f"an idle server answered single photos with {', '.join(map(str, refused))} instead of 200")
        phase(f"{arguments.clients} clients", load(port, bodies, arguments.clients, seconds))
        after = offline_rate()
        result["offline"] = {"before": before, "after": after}
        phase(f"{10 * arguments.clients} clients", load(port, bodies, 10 * arguments.clients, seconds / 2))
        phase("right after", one_at_a_time(port, bodies, 10, seconds))
        phase("hostile", hostile(port, max(seconds / 3, 5), bodies))
        phase("tiny requests", tiny(port, arguments.tiny))
        phase("at the end", one_at_a_time(port, bodies, 10, seconds))
        result["memory_mb"] = peaks
        if limit:
            result["cgroup"] = limit.read()
    finally:
        server.send_signal(signal.SIGTERM)
        result["exit_status"] = server.wait(60)
        if limit:
            limit.remove()
    rate = (before["photos_per_second"] + after["photos_per_second"]) / 2
    result["share_of_offline_rate"] = result[f"{arguments.clients} clients"]["answered_per_second"] / rate
    return result


def print_table(result: dict[str, Any]) -> None:
    print("| phase | statuses | 200 a second | 200: p50, p95 ms | 503: p50, p95 ms | peak MB |\n|---|---|---|---|---|---|")
    for name, found in result.items():
        if not isinstance(found, dict) or "statuses" not in found:
            continue
        statuses = ", ".join(f"{status}: {count:,}" for status, count in sorted(found["statuses"].items()))
        cells = [f"{part['p50']:.0f}, {part['p95']:.0f}" if (part := found.get(f"ms_{s}")) else "" for s in ("200", "503")]
        peak = result["memory_mb"][name]["peak"]
        print(f"| {name} | {statuses} | {found['answered_per_second']:.2f} | {cells[0]} | {cells[1]} | {peak:.0f} |")
    for when, found in result["offline"].items():
        rate, alone = found["photos_per_second"], found["model_p50_ms"]
        print(f"offline, {when}: {rate:.2f} photos a second; the model alone on one photo: {alone:.0f} ms")
    print(f"share of the offline rate: {100 * result['share_of_offline_rate']:.0f}%")
    for name, outcome in result["hostile"].items():
        print(f"hostile: {name}: {outcome}")
    print(f"exit status: {result['exit_status']}; memory: {result.get('cgroup', 'no limit set')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=EXAMPLES, help="folder of JPEG files")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tiny", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--memory-mb", type=int, help="run the server in a memory cgroup of this size")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--offline", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    photos = sorted(arguments.photos.glob("*.jpg"))
    if arguments.offline:
        print(json.dumps(offline(photos, arguments.seconds, arguments.threads, arguments.batch_size)))
        return
    result = measure(arguments, photos, Limit(arguments.memory_mb) if arguments.memory_mb else None)
    print_table(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
