"""ONNX models: building, writing, and the record of what was exported."""
