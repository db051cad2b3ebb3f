"""A page for one photo at a time, with Gradio: pip install showtell gradio, then python examples/gradio_app.py [MODEL].

MODEL is a bundle's name or folder, hub:..., hf:... or openai:..., as for the commands.
"""

import sys

import gradio

from showtell.captioners import AnyCaptioner, open_captioner


def interface(captioner: AnyCaptioner) -> gradio.Interface:
    """The page: a photo, and how many captions of it."""

    def caption(photo: object, count: float) -> str:
        [record] = captioner.records([photo], captioner.options(num_captions=int(count)))
        if record.error_code:
            raise gradio.Error(str(record.error_message))
        return "\n".join(caption.text for caption in record.captions)

    return gradio.Interface(
        caption,
        [gradio.Image(type="pil", label="Photo"), gradio.Slider(1, 5, value=1, step=1, label="Captions")],
        gradio.Textbox(label="Captions, best first"),
        title=captioner.name,
    )


if __name__ == "__main__":
    interface(open_captioner(*sys.argv[1:2])).launch()
