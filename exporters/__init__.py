"""Turns checkpoints into one verified bundle of ONNX graphs and weights."""
