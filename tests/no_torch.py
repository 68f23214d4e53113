"""Run by an environment that has the core of bothways alone: a trained model predicts there.

python tests/no_torch.py DIR "text" label     DIR was made by the environment that trains
"""

import importlib.util
import sys

import bothways

directory, text, label = sys.argv[1:]
missing = [name for name in ("torch", "onnx", "sklearn", "transformers") if importlib.util.find_spec(name) is None]
assert missing == ["torch", "onnx", "sklearn", "transformers"], f"only {missing} are missing here"
model = bothways.load(directory)
found = model([text])[0]
assert found.label == label, found
print(f"without PyTorch: {model.engine.describe()} says {found.label!r} ({found.score:.2f})")
