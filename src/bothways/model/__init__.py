"""The encoder, its heads and its files; `config`, `families` and `catalogue` work without PyTorch."""
