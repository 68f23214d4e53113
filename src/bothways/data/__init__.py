"""Reads tables, files of words with tags, and questions, and turns rows into examples."""
