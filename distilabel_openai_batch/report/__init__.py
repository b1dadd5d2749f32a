"""The report: a page of charts without a script."""
