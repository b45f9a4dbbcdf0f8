"""Real vLLM: what it is told, what it offers, and a fleet of it."""
