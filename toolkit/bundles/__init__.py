"""What runs a bundle: our compiled library, or another engine on its ONNX."""
