"""The engine `ray`: actors that hold the model, on one machine or many. Inputs, outputs and runs are those of the local engine.

    photos -> chunks -> actors, each of which runs `Captioner.records` on a chunk -> records, in the order of the photos

A chunk holds paths and URLs, which the actor opens itself, or the encoded bytes of photos within archives. The records of a
chunk come back whole or not at all: where an actor dies, another one does the chunk again. https://docs.ray.io, "Actors".
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from showtell.archive.members import RemotePhoto, of_bytes, unreadable
from showtell.archive.sources import Source
from showtell.errors import ImageError, MissingExtraError, OptionError, ServerError
from showtell.image import name_of
from showtell.runtime.cpu import available_cpus
from showtell.types import ConfidenceOptions, Record

_CHUNK = 64  # photos; a chunk's first photos wait for nothing to be captioned beside them, so small chunks cost time
_QUEUED = 2  # chunks at an actor: one that it works on, and the next
_AHEAD = 4  # chunks for each actor between the inputs and the outputs
_TRIES = 2  # of a chunk, then of each photo in it alone
_STARTS = 5  # of actors that fail in a row
_CONNECT = 10  # seconds for a cluster to take a connection


class Worker:
    """The class of the actors: each holds a captioner with its model."""

    def __init__(self, directory: str, captioner: Mapping[str, Any]) -> None:
        from showtell.captioners import open_captioner

        with suppress(OSError):  # relative paths are missing there, and URLs need no folder
            os.chdir(directory)
        self._captioner = open_captioner(**captioner)

    def model(self) -> dict[str, Any]:
        """The model's name, and the hashes of its files."""
        return model_of(self._captioner)

    def options(self, changes: Mapping[str, Any]) -> Any:
        """The captioner's search options."""
        return self._captioner.options(**changes)

    def caption(self, photos: list[Any], options: Any, how: Mapping[str, Any]) -> list[Record]:
        """One record a photo."""
        return list(self._captioner.records(photos, options, **how))


@dataclass(eq=False, slots=True)
class _Chunk:
    photos: list[Any]
    failures: int = 0
    records: list[Record] | None = None


@dataclass(frozen=True, slots=True)
class _Task:
    """A chunk at an actor, or a check that the actor is there."""

    actor: Any
    chunk: _Chunk | None
    places: int


class Cluster:
    """A captioner whose actors do the work; `model` is theirs."""

    def __init__(self, ray: Any, new_actor: Callable[[], Any], actors: int) -> None:
        self._ray, self._new_actor = ray, new_actor
        self._actors = [new_actor() for _ in range(actors)]
        self.model: dict[str, Any] = self._ask(self._actors[0].model.remote())

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self.model["name"])

    def options(self, **changes: Any) -> Any:
        """The model's search options with `changes` applied. Raises OptionError."""
        return self._ask(self._actors[0].options.remote(changes))

    def records(
        self,
        photos: Iterable[Source],
        options: Any = None,
        *,
        batch_size: int = 8,
        workers: int | None = None,
        confidence: ConfidenceOptions | None = None,
    ) -> Iterator[Record]:
        """One record a photo, in order. A photo with which workers die again and again has a record of that error.

        Raises ServerError where no worker is left, and the errors of `Captioner.records`.
        """
        how = {"batch_size": batch_size, "workers": workers, "confidence": confidence}
        source = iter(photos)
        order: deque[_Chunk] = deque()
        again: deque[_Chunk] = deque()
        free: Counter[Any] = Counter()  # places for chunks at each actor
        running = {actor.model.remote(): _Task(actor, None, _QUEUED) for actor in self._actors}
        failed_starts = 0
        ended = False
        while not ended or order:
            while again or not (ended or len(order) >= _AHEAD * len(self._actors)):
                # A chunk that an actor died with is alone at the next one, so that it takes no other chunk with it.
                places = _QUEUED if again else 1
                actor = next((actor for actor, count in free.items() if count >= places), None)
                if actor is None:
                    break
                if again:
                    chunk = again.popleft()
                elif taken := [_shipped(photo) for photo in islice(source, _CHUNK)]:
                    order.append(chunk := _Chunk(taken))
                else:
                    ended = True
                    break
                free[actor] -= places
                running[actor.caption.remote(chunk.photos, options, how)] = _Task(actor, chunk, places)
            if order and order[0].records is not None:
                yield from order.popleft().records or ()
                continue
            if not running:
                if order:
                    raise ServerError("no worker of Ray is left; see the logs of Ray, then continue with --resume")
                continue
            [done], _ = self._ray.wait(list(running), num_returns=1)
            task = running.pop(done)
            try:
                result = self._ray.get(done)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except self._ray.exceptions.RayError:
                if task.chunk:
                    self._failed(task.chunk, order, again)
                else:
                    failed_starts += 1
                if task.actor in self._actors:  # it may have had two chunks
                    del free[task.actor]
                    self._actors.remove(task.actor)
                    self._ray.kill(task.actor)  # where it could not be reached, but lives
                    if failed_starts < _STARTS:
                        self._actors.append(actor := self._new_actor())
                        running[actor.model.remote()] = _Task(actor, None, _QUEUED)
                continue
            if task.actor in self._actors:
                free[task.actor] += task.places
            if task.chunk:
                task.chunk.records = result
                failed_starts = 0
            elif result != self.model:
                raise ServerError(f"a worker of Ray has the model {result}, and another one {self.model}; install the same")

    def _failed(self, chunk: _Chunk, order: deque[_Chunk], again: deque[_Chunk]) -> None:
        """Puts a chunk back whose actor died: whole at first, then photo by photo."""
        chunk.failures += 1
        if chunk.failures < _TRIES:
            again.append(chunk)
        elif len(chunk.photos) > 1:
            place = order.index(chunk)
            order.remove(chunk)
            for photo in reversed(chunk.photos):
                order.insert(place, _Chunk([photo]))
                again.appendleft(order[place])
        else:
            name = name_of(chunk.photos[0])
            message = f"{name}: the process that captioned it died again and again; it may need too much memory"
            chunk.records = [Record(name, "error", model=self.name, error_code="unreadable", error_message=message)]

    def _ask(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.ActorDiedError as error:
            cause = str(error).strip().splitlines()[-1]
            raise ServerError(f"the workers of Ray cannot start: {cause}") from None


def model_of(captioner: Any) -> dict[str, Any]:
    """The name of a captioner's model, and of a bundle the hashes of its files."""
    if isinstance(captioner, Cluster):
        return captioner.model
    bundle = getattr(captioner, "bundle", None)
    return {"name": captioner.name, "files": dict(bundle.config.files) if bundle else {}}


@contextmanager
def start(captioner: Mapping[str, Any], address: str | None, actors: int | None) -> Iterator[Cluster]:
    """Actors on the Ray cluster at `address`, or else on a Ray that is started here and ended afterwards.

    `captioner` are the arguments of `open_captioner`; each actor takes as many processors as their `threads`. Without `actors`
    there are as many as the cluster has processors for. Raises MissingExtraError, ServerError where no cluster answers, and
    OptionError where it is too small.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    with _environment(own=not address):
        try:
            import ray
        except ImportError:
            raise MissingExtraError("ray", "--engine ray") from None
        try:
            if address:
                _check_answers(address)
            with _signals_kept():
                own = {} if address else {"num_cpus": available_cpus(), "include_dashboard": False}
                ray.init(address or "local", log_to_driver=False, logging_level="error", **own)
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ServerError(f"{address or 'Ray'}: no cluster answers ({reason}); start one with: ray start --head") from None
        try:
            threads = captioner["threads"]
            room = int(ray.cluster_resources().get("CPU", 0)) // threads
            if not (actors or room):
                raise OptionError(f"threads is {threads}, and the Ray cluster has fewer processors")
            worker = ray.remote(Worker).options(num_cpus=threads, num_gpus=int(captioner["device"].startswith("cuda")))
            yield Cluster(ray, partial(worker.remote, str(Path.cwd()), captioner), actors or room)
        finally:
            with _signals_kept():
                ray.shutdown()


def _check_answers(address: str) -> None:
    """Raises OSError where nothing listens at HOST:PORT, or ray://HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT).close()


@contextmanager
def _environment(*, own: bool) -> Iterator[None]:
    """Ray's settings: no report to its maker, and its messages to standard error, since captions go to standard output.

    A Ray of our own asks for a token: it listens on all networks, and whoever reaches it may run programs.
    """
    given = {"RAY_USAGE_STATS_ENABLED": "0"} | (
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)} if own else {}
    )
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Puts back the handler of SIGTERM, which Ray replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _shipped(photo: Any) -> Any:
    """A photo as it goes to an actor: its path or URL, or its bytes where it is within an archive."""
    if isinstance(photo, (str, RemotePhoto)):
        return photo
    try:
        return of_bytes(name_of(photo), photo.read())
    except ImageError as error:
        return unreadable(photo.name, error.code, str(error).removeprefix(f"{photo.name}: "))
