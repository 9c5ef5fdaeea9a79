"""What a conversation opens with, prepared when the last one has ended: the greeting's text, and its speech."""
