"""The engine: calls in, outcomes out, through jobs of the Batch API. Knows neither distilabel nor a terminal."""
