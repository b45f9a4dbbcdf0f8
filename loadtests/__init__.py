"""Proof: replays, benchmarks, simulation."""
