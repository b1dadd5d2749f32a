"""The sandbox's model: answers that are a pure function of the request body."""
