"""What a tutorial shows: `transformers.pipeline` in FastAPI. Run by serve.py with a model directory and a port."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from transformers import pipeline

classify = pipeline("text-classification", model=sys.argv[1], device="cpu")
app = FastAPI()


@app.post("/predict")
def predict(body: dict[str, str]) -> Any:
    """The class of a text."""
    return classify(body["inputs"], truncation=True, max_length=512)


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[2]), log_level="warning", access_log=False)
