"""What many conversations at once cost the server."""
