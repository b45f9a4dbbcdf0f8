"""How many requests an engine has, read from its metrics.

In: an engine's Prometheus text. Out: a count. Never: asks an engine.
"""


def requests_of(metrics: str) -> int:
    """Running and waiting requests in an engine's Prometheus text, vLLM's names or llama.cpp's."""
    names = ("num_requests_running", "num_requests_waiting", "requests_processing")
    total = 0.0
    for line in metrics.splitlines():
        name = line.split("{", 1)[0].split(" ", 1)[0]
        if name.endswith((*names, "requests_deferred")):
            total += float(line.rsplit(" ", 1)[1])
    return int(total)
