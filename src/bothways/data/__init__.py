"""Read tables, tagged words and questions from files or memory, and convert them to examples."""
