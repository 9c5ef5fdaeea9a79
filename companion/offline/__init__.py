"""The offline voice: an LLM for machines without a key, which answers from rules."""
