"""LitServe around the int8 ONNX model of a directory. Run by serve.py with a model directory and a port."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Classifier(litserve.LitAPI):  # type: ignore[misc]
    """Texts to their classes, in the order in which they come."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - it computes on the processor
        """Open the model."""
        model = Path(sys.argv[1])
        self.session = onnxruntime.InferenceSession(model / "onnx" / "model_int8.onnx")
        self.tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self.tokenizer.enable_truncation(512)
        self.tokenizer.enable_padding()
        names = json.loads((model / "config.json").read_text())["id2label"]
        self.labels = [names[str(number)] for number in range(len(names))]

    def decode_request(self, request: dict[str, str]) -> str:
        """The text of a request."""
        return request["inputs"]

    def batch(self, inputs: list[str]) -> list[str]:
        """Texts as they are; `predict` pads them."""
        return inputs

    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """The best class of each text."""
        encoded = self.tokenizer.encode_batch(texts)
        fields = ("ids", "attention_mask", "type_ids")
        ids, mask, types = (np.array([getattr(one, name) for one in encoded], dtype=np.int64) for name in fields)
        reads = np.arange(len(ids), dtype=np.int64) * ids.shape[1]  # the first token of each text
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "reads": reads}
        (logits,) = self.session.run(None, inputs)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        rows = zip(shares.argmax(1).tolist(), shares.max(1).tolist(), strict=True)
        return [{"label": self.labels[place], "score": score} for place, score in rows]

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One answer for each text."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """The answer as it is."""
        return output


if __name__ == "__main__":
    api = Classifier(max_batch_size=16, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(port=int(sys.argv[2]), log_level="warning", generate_client_file=False)
