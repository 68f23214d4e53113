"""BERT and its family: text file in, trustworthy model out, answers served."""

__version__ = "0.1.0"
