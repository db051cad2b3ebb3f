"""Other captioners on the same photos: photos a second, one peer a process.

    python benchmarks/peers.py keras|blip|vit-gpt2 FOLDER [--photos 8] [--batch 4] [--threads 2]

FOLDER holds JPEGs. The peers have the sizes that they were published with and random weights, which are as fast as trained
ones; all give 12 tokens a photo, greedily. What is timed goes from files to token ids; loading and one batch before it are
not. The packages come with `pip install 'showtell[bench]'`, best into an environment of their own.

    keras      the pipeline that showtell replaces: ResNet-50 pooled to 2,048 numbers, merge LSTM, `model.predict` on the whole
               prefix for each word, a photo at a time
    blip       BLIP base (Li et al. 2022): ViT-B/16 at 384 pixels, a 12-layer text decoder
    vit-gpt2   ViT-B/16 at 224 pixels and GPT-2 small with cross-attention

Prints one JSON object. `speed.py` runs all three beside showtell.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOKENS = 12
Caption = Callable[[list[Path]], None]


def keras(threads: int) -> Caption:
    """The original project's pipeline, its vocabulary of 1,848 and its loop."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import numpy as np
    import tensorflow as tf
    from tensorflow.keras import Model, layers
    from tensorflow.keras.applications.resnet50 import ResNet50, preprocess_input
    from tensorflow.keras.preprocessing.image import img_to_array, load_img

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    words, longest = 1848, 33
    encoder = ResNet50(weights=None, include_top=False, pooling="avg", input_shape=(224, 224, 3))
    image = layers.Input((2048,))
    seen = layers.Dense(256, activation="relu")(layers.Dropout(0.3)(image))
    prefix = layers.Input((longest,))
    embedded = layers.Dropout(0.3)(layers.Embedding(words, 50, mask_zero=True)(prefix))
    told = layers.LSTM(256)(embedded)
    scores = layers.Dense(words, activation="softmax")(layers.Dense(256, activation="relu")(layers.add([seen, told])))
    decoder = Model([image, prefix], scores)

    def caption(paths: list[Path]) -> None:
        for path in paths:
            pixels = preprocess_input(img_to_array(load_img(path, target_size=(224, 224)))[None])
            features = encoder.predict(pixels, verbose=0)
            ids = [1]
            for _ in range(TOKENS):
                padded = np.zeros((1, longest), np.int64)
                padded[0, longest - len(ids) :] = ids
                ids.append(int(decoder.predict([features, padded], verbose=0)[0].argmax()) or 1)

    return caption


def pixels(paths: list[Path], size: int) -> Any:
    """The photos as a torch tensor float32 (B, 3, size, size), resized and normalised as such models want it."""
    import numpy as np
    import torch
    from PIL import Image

    photos = [Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BICUBIC) for path in paths]
    values = np.stack([np.asarray(photo, np.float32) for photo in photos]) / 127.5 - 1
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


def blip(threads: int) -> Caption:
    """BLIP base by its published configuration."""
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration

    torch.set_num_threads(threads)
    model = BlipForConditionalGeneration(BlipConfig()).eval()

    def caption(paths: list[Path]) -> None:
        with torch.inference_mode():
            model.generate(pixels(paths, 384), num_beams=1, do_sample=False, min_new_tokens=TOKENS, max_new_tokens=TOKENS)

    return caption


def vit_gpt2(threads: int) -> Caption:
    """ViT-B/16 and GPT-2 small."""
    import torch
    from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

    torch.set_num_threads(threads)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(), GPT2Config())
    config.decoder_start_token_id = config.pad_token_id = 50256
    model = VisionEncoderDecoderModel(config).eval()

    def caption(paths: list[Path]) -> None:
        with torch.inference_mode():
            lengths = {"min_new_tokens": TOKENS, "max_new_tokens": TOKENS}
            model.generate(
                pixels(paths, 224), num_beams=1, do_sample=False, decoder_start_token_id=50256, pad_token_id=50256, **lengths
            )

    return caption


PEERS = {"keras": keras, "blip": blip, "vit-gpt2": vit_gpt2}


def main() -> None:
    """Times one peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    caption = PEERS[arguments.peer](arguments.threads)
    paths = sorted(arguments.folder.glob("*.jpg"))[: arguments.photos]
    caption(paths[: arguments.batch])  # compiled and laid out; for Keras, also its graph's first trace
    started = time.perf_counter()
    for start in range(0, len(paths), arguments.batch):
        caption(paths[start : start + arguments.batch])
    seconds = time.perf_counter() - started
    print(json.dumps({"peer": arguments.peer, "photos": len(paths), "seconds": round(seconds, 3)}))


if __name__ == "__main__":
    main()
