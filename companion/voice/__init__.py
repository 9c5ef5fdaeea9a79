"""The agent in the session: its models, the text console, tracing and log redaction."""
