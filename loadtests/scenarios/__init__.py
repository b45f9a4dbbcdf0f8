"""Scenarios: TOML files that each ask a question of a simulated cluster, and what reads them."""
