"""Run by an environment that has the core of bothways alone: a trained model predicts there.

python tests/no_torch.py DIR "text" label     DIR was made by the environment that trains
"""

import importlib.util
import sys

import bothways

ABSENT = ("torch", "onnx", "sklearn", "transformers")


def main(directory: str, text: str, label: str) -> None:
    """Fail unless the text gets the label, without what trains."""
    present = [name for name in ABSENT if importlib.util.find_spec(name) is not None]
    assert not present, f"{present} should not be here"
    model = bothways.load(directory)
    found = model([text])[0]
    assert found.label == label, found
    print(f"without PyTorch: {model.engine.describe()} says {found.label!r} ({found.score:.2f})")


if __name__ == "__main__":
    main(*sys.argv[1:])
