"""From files and strings to pieces: readers, tokenizers, windows."""
