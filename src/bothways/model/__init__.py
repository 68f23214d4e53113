"""Encoder, heads and checkpoints; `config`, `families` and `catalogue` work without PyTorch."""
