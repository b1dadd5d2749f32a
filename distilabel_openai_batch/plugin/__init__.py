"""Classes that users hold: LLMs, embeddings and steps."""
