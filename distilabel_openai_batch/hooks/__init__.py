"""Every touch of distilabel's internals."""
