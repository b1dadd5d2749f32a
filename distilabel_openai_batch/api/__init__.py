"""The Batch API over HTTP: its JSON, its files and batches, and the errors that its calls end with."""
