"""The agent in the session: its models, their failures, LiveKit's consoles, tracing and log redaction."""
