"""ONNX models: building, writing, and the export record."""
