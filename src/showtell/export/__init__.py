"""A checkpoint to a bundle that runs without torch."""

from showtell.export.export import EncoderInt8, calibration_inputs, export, quantize_encoder, write_graphs

__all__ = ["EncoderInt8", "calibration_inputs", "export", "quantize_encoder", "write_graphs"]
