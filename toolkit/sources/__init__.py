"""Where a network comes from: the zoo, a trained file, an ONNX file or a Python callable. All become one ONNX."""
