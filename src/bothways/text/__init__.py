"""From files and strings to tokens: readers, tokenizers, windows."""
