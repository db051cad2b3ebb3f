"""Running a bundle with onnxruntime."""

from showtell.runtime.captioner import Captioner, load

__all__ = ["Captioner", "load"]
