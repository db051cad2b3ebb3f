"""From a checkpoint to a bundle: three ONNX graphs, quantised to int8 where asked for.

Quantisation is static, in QDQ form: int8 weights with one scale a channel, uint8 activations with one scale a tensor, taken
from the ranges seen on calibration photos (Jacob et al. 2018). The rest of the decoder is stored in half precision and
widened when a session loads it, which costs no accuracy that can be measured.
"""

import contextlib
import copy
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from showtell import bundle
from showtell.arrays import Array
from showtell.bundle import Bundle
from showtell.data import PhotoStore, recognise
from showtell.data import read as read_dataset
from showtell.decoding import Step, search
from showtell.errors import DataError, ImageError, OutputError
from showtell.export.graphs import fold_constants, fold_padding, quantize_products, store_half
from showtell.files import new_folder, try_place
from showtell.image import read_photo
from showtell.nn.decoders import Decoder
from showtell.nn.encoder import STAGES, Encoder
from showtell.nn.model import CaptionModel
from showtell.runtime.sessions import OnnxEncoder, OnnxState, OnnxStepModel
from showtell.train.recipe import without_folders
from showtell.train.run.checkpoint import Checkpoint
from showtell.types import DecodeOptions
from showtell.vocabulary import Vocabulary

OPSET = 18
Quantize = Literal["none", "int8"]
DECODER_PHOTOS = 32  # of those to calibrate on, for the decoder: a thousand steps are enough for its ranges


def export(
    checkpoint: Checkpoint,
    output: Path,
    *,
    quantize: Quantize = "none",
    calibration: Sequence[Array] = (),
    encoder: Bundle | None = None,
    options: DecodeOptions | None = None,
    name: str | None = None,
    licence: str = "",
    card: Path | None = None,
) -> None:
    """Writes the checkpoint's captioner as a bundle to `output`, which must not exist.

    `calibration` holds photos as model input, float32 (3, size, size) each; needed for int8. With `encoder`, that bundle's
    encoder is taken as it is, the one whose features the decoder was trained on, and the decoder is quantised as that bundle
    is. `options` are the bundle's default search options; `licence` is kept in its config for those who get it,
    and a copy of the file `card` beside it.
    """
    if output.exists():
        raise OutputError(f"{output}: already exists; give a new folder")
    model = checkpoint.load_model()
    if encoder is not None:
        model.check_encoder_of(encoder)
        quantize = encoder.config.quantization
    if quantize == "int8" and not calibration:
        raise OutputError("int8 needs photos to calibrate on; give some, 100 or more that look like those to be captioned")
    try:
        about_model = card.read_text(encoding="utf-8") if card else None
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"{card}: not readable as a model card in UTF-8 ({error})") from None
    try_place(output, parents=True)
    with new_folder(output) as folder:
        write_graphs(model, folder)
        options = options or DecodeOptions.from_json(checkpoint.config.recipe["validation"])
        if encoder is not None:
            shutil.copyfile(encoder.folder / "encoder.onnx", folder / "encoder.onnx")
        elif quantize == "int8":
            quantize_encoder(folder / "encoder.onnx", model.encoder, calibration)
        if quantize == "int8":
            quantize_decoder(folder, model.vocabulary, options, calibration)
        model.vocabulary.save(folder / "vocab.json")
        if about_model is not None:
            (folder / bundle.CARD).write_text(about_model, encoding="utf-8")
        bundle.write_config(
            folder,
            name=name or default_name(output),
            architecture={"encoder": asdict(model.encoder.config), "decoder": asdict(model.decoder.config)},
            preprocessing=model.preprocessing,
            search=options,
            about={
                "licence": licence,
                "quantization": quantize,
                "data": checkpoint.config.data,
                "encoder_weights": checkpoint.config.encoder_weights,
                "recipe": without_folders(checkpoint.config.recipe),
                "epoch": checkpoint.epoch,
                **({"mean_of": checkpoint.config.mean_of} if checkpoint.config.mean_of else {}),
                "training_scores": checkpoint.scores,  # on dev photos, before anything was quantised
            },
        )
        bundle.Bundle.read(folder).check(options)  # the words of its search, above all


def default_name(output: Path) -> str:
    """A bundle's name by its folder; that of a folder which is only called `bundle` is its run's."""
    folder = output.resolve()
    return folder.parent.name if folder.name == "bundle" and folder.parent.name else folder.name


def calibration_inputs(
    checkpoint: Checkpoint, source: Path, count: int, layout: str | None = None, left_out: Callable[[str], None] | None = None
) -> list[Array]:
    """`count` photos below `source` as model input: of the train split where `source` is a data set, evenly spread.

    Photos that cannot be read are left out, each with a call of `left_out` that says why. Raises DataError where none is left.
    """
    preprocessing = checkpoint.config.preprocessing
    if layout or recognise(source):
        dataset = read_dataset(source, layout)
        photos, names = dataset.photos, sorted(sample.image for sample in dataset.split("train"))
    else:
        photos = PhotoStore([source])
        names = photos.names()
    if not names:
        raise DataError(f"{source}: no photos here to calibrate on")
    chosen = [names[place] for place in np.linspace(0, len(names) - 1, min(count, len(names))).astype(int)]
    inputs = []
    for name in chosen:
        try:
            inputs.append(preprocessing.normalize(read_photo(photos.read(name), preprocessing, name).pixels))
        except ImageError as error:
            if left_out:
                left_out(f"{error.message} [{error.code}]")
    if not inputs:
        raise DataError(f"{source}: none of the {len(chosen)} photos to calibrate on can be read")
    return inputs


def write_graphs(model: CaptionModel, folder: Path) -> None:
    """encoder.onnx, prepare.onnx and step.onnx in float32."""
    size = model.preprocessing.size
    encoder = fold_batch_norm(model.encoder)
    pixels = torch.zeros(2, 3, size, size)
    _write(encoder, (pixels,), folder / "encoder.onnx", ["pixels"], ["features"], {"pixels": {0: "photos"}})
    fold_padding(folder / "encoder.onnx")

    features = torch.zeros(2, (size // 32) ** 2, model.encoder.config.channels)
    prepare = _Prepare(model.decoder).eval()
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    with torch.inference_mode():
        found: tuple[Any, Any] = model.decoder.eval().prepare(features)
        prepared, first = found
        state = type(first)(*(part.expand(-1, 3, -1).clone() for part in first))
        attention = model.decoder.step(tokens, prepared, state)[2]
    prepared_names, state_names = list(prepared._fields), list(state._fields)
    _write(
        prepare, (features,), folder / "prepare.onnx", ["features"], prepared_names + state_names, {"features": {0: "photos"}}
    )
    axes = {name: {0: "photos"} for name in prepared_names}
    axes |= {name: {0: "photos", 1: "hypotheses"} for name in ["tokens", *state_names]}
    outputs = ["log_probs", *(["attention"] if attention is not None else []), *(f"next_{name}" for name in state_names)]
    step = _Step(model.decoder, type(prepared), type(state)).eval()
    _write(step, (tokens, *prepared, *state), folder / "step.onnx", ["tokens", *prepared_names, *state_names], outputs, axes)
    for name in ("prepare.onnx", "step.onnx"):
        fold_constants(folder / name)


class _Prepare(nn.Module):
    """A decoder's `prepare` with plain tensors out, as an ONNX graph has them."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        prepared, state = self.decoder.prepare(features)
        return (*prepared, *state)


class _Step(nn.Module):
    """A decoder's `step` with plain tensors in and out; without attention weights where it has none."""

    def __init__(self, decoder: Decoder, prepared: Any, state: Any) -> None:
        super().__init__()
        self.decoder = decoder
        self._prepared, self._state = prepared, state  # the types of its named tuples

    def forward(self, tokens: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        count = len(self._prepared._fields)
        log_probs, state, attention = self.decoder.step(tokens, self._prepared(*parts[:count]), self._state(*parts[count:]))
        return (log_probs, *(() if attention is None else (attention,)), *state)


def fold_batch_norm(encoder: Encoder) -> Encoder:
    """A copy whose normalisations are part of the convolutions before them: the same function with half the operations."""
    folded = copy.deepcopy(encoder).eval()
    pairs = [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1")]
    for module in list(folded.modules()):
        for conv, norm in pairs:
            convolution, normalisation = getattr(module, conv, None), getattr(module, norm, None)
            if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
                setattr(module, conv, fuse_conv_bn_eval(convolution, normalisation))
                setattr(module, norm, nn.Identity())
    return folded


@dataclass(frozen=True, slots=True)
class EncoderInt8:
    """How the encoder is quantised. `benchmarks/quantization.py` measures the choices; the defaults are what ships.

    `percentile` of the values of each activation are inside its range; 100 is plain extremes. `float_first` keeps the stem and
    the first stage in float32: they hold 1% of the weights and cause a third of the error. `float_last` does so with the last
    block. `reduce_range` gives weights 7 bits, which cannot overflow on processors without VNNI.
    """

    percentile: float = 99.999
    per_channel: bool = True
    signed_activations: bool = False
    reduce_range: bool = False
    float_first: bool = True
    float_last: bool = False


def quantize_encoder(path: Path, encoder: Encoder, calibration: Sequence[Array], how: EncoderInt8 | None = None) -> None:
    """Replaces the float32 graph of `encoder` at `path` by its int8 form."""
    how = how or EncoderInt8()
    after = {id(module) for number in range(2, STAGES + 1) for module in encoder.stage(number).modules()}
    first = sum(isinstance(module, nn.Conv2d) and id(module) not in after for module in encoder.modules())
    nodes = onnx.load(path).graph.node
    convolutions = [place for place, node in enumerate(nodes) if node.op_type == "Conv"]
    exact = [node.name for node in nodes[: convolutions[first]]] if how.float_first else []
    if how.float_last:
        exact += [node.name for node in nodes[convolutions[-3] :]]
    method = CalibrationMethod.MinMax if how.percentile == 100 else CalibrationMethod.Percentile
    extra = {} if how.percentile == 100 else {"CalibPercentile": how.percentile}
    with tempfile.TemporaryDirectory() as temporary:
        quantized = Path(temporary) / "int8.onnx"
        previous = logging.root.level
        logging.root.setLevel(logging.ERROR)  # advice on preprocessing that a folded convolutional network does not need
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints how it calibrates
                quantize_static(
                    path,
                    quantized,
                    _Reader(calibration),
                    quant_format=QuantFormat.QDQ,
                    per_channel=how.per_channel,
                    reduce_range=how.reduce_range,
                    activation_type=QuantType.QInt8 if how.signed_activations else QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                    nodes_to_exclude=exact,
                    calibrate_method=method,
                    extra_options=extra,
                )
        finally:
            logging.root.setLevel(previous)
        shutil.copyfile(quantized, path)


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Calibration photos for onnxruntime, one at a time: it stacks what batches give, which must all be of one size."""

    def __init__(self, photos: Sequence[Array]) -> None:
        self._photos = iter(photos)

    def get_next(self) -> dict[str, Array] | None:
        photo = next(self._photos, None)
        return None if photo is None else {"pixels": photo[None]}


def quantize_decoder(folder: Path, vocabulary: Vocabulary, search_options: DecodeOptions, calibration: Sequence[Array]) -> None:
    """Replaces prepare.onnx and step.onnx in `folder` by their int8 forms, and stores their other constants in half precision.

    Ranges are those of the steps that `search_options` leads to on the photos of `calibration`.
    """
    encoder, steps = OnnxEncoder(folder, 1, "cpu"), _Steps(folder)
    grids = []
    for start in range(0, min(len(calibration), DECODER_PHOTOS), 8):
        features = encoder(np.stack(calibration[start : min(start + 8, DECODER_PHOTOS)]))
        search(steps, features, vocabulary.search_tokens(search_options.style), search_options)
        grids.append({"features": features})
    quantize_products(folder / "prepare.onnx", grids)
    quantize_products(folder / "step.onnx", steps.inputs)
    for name in ("prepare.onnx", "step.onnx"):
        store_half(folder / name)


class _Steps(OnnxStepModel):
    """A decoder that keeps what each of its steps was given."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 1, "cpu")
        self.inputs: list[dict[str, Array]] = []

    def step(self, tokens: Array, state: OnnxState) -> Step:
        self.inputs.append({"tokens": tokens, **state.prepared, **state.recurrent})
        return super().step(tokens, state)


def _write(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path,
    names: list[str],
    outputs: list[str],
    axes: dict[str, dict[int, str]],
) -> None:
    """Exports `module` to one self-contained ONNX file and checks it. `axes` names the dimensions that may vary."""
    dimensions = {name: torch.export.Dim(name) for many in axes.values() for name in many.values()}
    shapes: tuple[Any, ...] = tuple({axis: dimensions[dim] for axis, dim in axes[name].items()} for name in names)
    if isinstance(module, _Step):
        shapes = (shapes[0], shapes[1:])  # its `*parts`
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)  # torch.onnx reports its internals
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(),
                inputs,
                input_names=names,
                output_names=outputs,
                dynamic_shapes=shapes,
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        logging.disable(previous)
    assert program is not None  # so where no file is asked for
    program.save(path, external_data=False)
    onnx.checker.check_model(onnx.load(path), full_check=True)
