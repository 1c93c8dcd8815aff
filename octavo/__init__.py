"""octavo: run an ensemble of language models on ONNX Runtime, and know what it costs before you buy GPUs."""

__version__ = "0.1.0"
