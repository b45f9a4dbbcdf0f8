"""Policies compared on scenarios: which cells, what they came to, and nothing run twice."""
