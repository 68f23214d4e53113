"""What a user asks for in one call; the command line is a thin face on these."""
