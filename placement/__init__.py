"""The ground: what exists, what fits, what to do. See `docs/one_requests_day.md`."""
