"""A bundle's three graphs as onnxruntime sessions: the encoder, and the decoder behind the search's protocol."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime

from showtell.arrays import Array
from showtell.decoding import Step
from showtell.errors import BundleError, OptionError

Device = Literal["cpu", "cuda"]


class OnnxEncoder:
    """Model input to grid features."""

    def __init__(self, folder: Path, threads: int, device: Device) -> None:
        self._session = _session(folder / "encoder.onnx", threads, device)

    def __call__(self, pixels: Array) -> Array:
        """Grid features float32 (B, cells, channels) of preprocessed photos, float32 (B, 3, size, size)."""
        features: Array = self._session.run(["features"], {"pixels": pixels})[0]
        return features


@dataclass(frozen=True, slots=True)
class OnnxState:
    """`prepared` is per photo, (B, ...); `recurrent` per hypothesis, (B, K, ...)."""

    prepared: dict[str, Array]
    recurrent: dict[str, Array]


class OnnxStepModel:
    """prepare.onnx and step.onnx as a `decoding.StepModel`."""

    def __init__(self, folder: Path, threads: int, device: Device) -> None:
        self._prepare = _session(folder / "prepare.onnx", threads, device)
        self._step = _session(folder / "step.onnx", threads, device)
        outputs = [output.name for output in self._step.get_outputs()]
        # The graphs say themselves which of prepare's outputs come back changed from each step.
        self._recurrent = [name.removeprefix("next_") for name in outputs if name.startswith("next_")]
        self._outputs = outputs  # log_probs, the new state and, where the decoder attends, attention

    def start(self, features: Array) -> OnnxState:
        """See decoding.StepModel."""
        names = [output.name for output in self._prepare.get_outputs()]
        values = self._prepare.run(names, {"features": np.ascontiguousarray(features, np.float32)})
        parts = dict(zip(names, values, strict=True))
        return OnnxState(
            {name: part for name, part in parts.items() if name not in self._recurrent},
            {name: parts[name] for name in self._recurrent},
        )

    def step(self, tokens: Array, state: OnnxState) -> Step:
        """See decoding.StepModel."""
        inputs = {"tokens": np.ascontiguousarray(tokens, np.int64), **state.prepared, **state.recurrent}
        found = dict(zip(self._outputs, self._step.run(self._outputs, inputs), strict=True))
        after = OnnxState(state.prepared, {name: found[f"next_{name}"] for name in self._recurrent})
        return Step(found["log_probs"], after, found.get("attention"))

    def reorder(self, state: OnnxState, photos: Array, hypotheses: Array) -> OnnxState:
        """See decoding.StepModel."""
        count = len(photos)
        moved = np.flatnonzero(photos != np.arange(count))
        for part in state.prepared.values():  # grids are large: to copy all of them whenever a photo is done takes long
            part[moved] = part[photos[moved]]
        prepared = {name: part[:count] for name, part in state.prepared.items()}
        rows = photos[:, None]
        return OnnxState(prepared, {name: part[rows, hypotheses] for name, part in state.recurrent.items()})


def _session(path: Path, threads: int, device: Device) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    available = onnxruntime.get_available_providers()
    providers = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"]}.get(device)
    if providers is None:
        raise OptionError(f"device {device!r} is not known; it must be cpu or cuda")
    if providers[0] not in available:
        raise OptionError(f"device {device!r} needs onnxruntime-gpu instead of onnxruntime; here are {', '.join(available)}")
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no common class that it names
        raise BundleError(f"{path}: onnxruntime cannot run it: {error}") from None
