"""Steps that do not block a pipeline: stream, submit, load."""
