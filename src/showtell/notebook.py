"""How captions and records show themselves in a notebook: HTML with a small photo, escaped, without scripts."""

import base64
import io
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from showtell.errors import ImageError
from showtell.image import read_rgb
from showtell.runtime.explain import heat
from showtell.types import Caption, Record

SIDE = 240  # pixels of a photo's longer side
_WORD = 110  # and of a photo under a word's attention


def caption_html(caption: Caption) -> str:
    """The caption beside its photo, then its alternatives."""
    return _card(_photo(caption.photo), caption.text, [caption, *caption.alternatives], "")


def record_html(record: Record) -> str:
    """The record's captions beside its photo, and the photo once for each word if the record has attention; or its error."""
    if record.error_code is not None:
        return f"<p>{escape(str(record.error_message))} [{record.error_code}]</p>"
    picture = _photo(record.path) if Path(record.path).is_file() else None
    return _card(picture, record.caption or "", list(record.captions), _words(record, picture))


def _card(picture: Image.Image | None, alt: str, captions: list[Caption], below: str) -> str:
    image = _img(picture, alt, SIDE) if picture else ""
    lines = "".join(
        f"<p style='margin:.2em 0;{'font-weight:bold' if number == 0 else ''}'>{escape(caption.text)} "
        f"<span style='opacity:.6;font-weight:normal'>{_sure(caption)}</span></p>"
        for number, caption in enumerate(captions)
    )
    return f"<div style='display:flex;gap:1em;align-items:center'>{image}<div>{lines}</div></div>{below}"


def _sure(caption: Caption) -> str:
    return f"{caption.score:.2f}" if caption.confidence is None else f"confidence {caption.confidence:.0%}"


def _words(record: Record, picture: Image.Image | None) -> str:
    if record.attention is None or picture is None:
        return ""
    small = picture.copy()
    small.thumbnail((_WORD, _WORD))
    figures = "".join(
        f"<figure style='margin:0;text-align:center'>{_img(heat(small, np.array(grid, np.float32)), piece.strip(), _WORD)}"
        f"<figcaption>{escape(piece.strip())}</figcaption></figure>"
        for piece, grid in zip(record.captions[0].pieces, record.attention, strict=True)
    )
    return f"<div style='display:flex;flex-wrap:wrap;gap:.5em;margin-top:.5em'>{figures}</div>"


def _photo(source: Any) -> Image.Image | None:
    """The photo, small and upright; None where it cannot be read any more."""
    if source is None:
        return None
    try:
        picture = read_rgb(source)
    except ImageError:
        return None
    picture.thumbnail((SIDE, SIDE))
    return picture


def _img(picture: Image.Image, alt: str, side: int) -> str:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    url = base64.b64encode(data.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{url}" alt="{escape(alt)}" style="max-width:{side}px;max-height:{side}px">'
