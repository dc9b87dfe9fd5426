"""ONNX: graphs written as files that ONNX Runtime executes."""
