"""The Batch API over HTTP: JSON in and out, files, batches, retries and the mapping of errors."""
