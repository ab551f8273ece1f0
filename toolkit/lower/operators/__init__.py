"""How ONNX operators become layers, a file for each kind of operator; `table.OPS` names them all."""
