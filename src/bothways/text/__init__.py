"""Read files and tokenize text: readers, tokenizers, windows."""
