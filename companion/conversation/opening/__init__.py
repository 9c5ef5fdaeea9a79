"""How a conversation opens: decided, and its text and speech prepared, when the last one has ended."""
