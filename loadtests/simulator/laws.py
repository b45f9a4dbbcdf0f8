"""What holds at every moment of every simulation, asserted where a test asks for it.

In: nodes and engines as they are. Out: nothing, or an `AssertionError` that says what broke.
Never: changes anything. Bytes and flows are counted here from what each node says it physically
holds, not by the books that admitted them.
"""

from collections.abc import Mapping

from loadtests.simulator.engine import Engine
from loadtests.simulator.nodes import Node
from loadtests.simulator.port import Ending, Run
from placement.edges import total_rate
from placement.feasibility import usable_hbm_bytes

_ROUNDING = 1 + 1e-9


class Laws:
    """Holds on to a world's nodes and engines, which change under it."""

    def __init__(self, nodes: Mapping[str, Node], engines: Mapping[str, Engine]) -> None:
        self._nodes = nodes
        self._engines = engines

    def check(self) -> None:
        for node in self._nodes.values():
            check_memory(node)
            check_links(node)
            node.check()
        for engine in self._engines.values():
            check_tokens(engine)
            check_alarm(engine)

    def check_run(self, run: Run) -> None:
        """Once it is over: every request has ended, and tokens are those of whole answers."""
        assert all(ending in tuple(Ending) for ending in run.ending)
        assert all(
            (ttft_us >= 0 and itl_us >= 0) == (ending == Ending.ANSWERED)
            for ttft_us, itl_us, ending in zip(run.ttft_us, run.itl_us, run.ending, strict=True)
        )


def check_memory(node: Node) -> None:
    """No GPU and no host holds more than it has, starts included."""
    gpus, host = node.held_bytes()
    usable = usable_hbm_bytes(node.spec.hbm_bytes)
    for gpu_id, held in enumerate(gpus):
        assert held <= usable, f"GPU {gpu_id} of {node.spec.id} holds {held} of {usable} bytes"
    limit = node.spec.host_bytes
    assert host <= limit, f"the host of {node.spec.id} holds {host} of {limit} bytes"


def check_links(node: Node) -> None:
    for link, flow in node.flows().items():
        limit = total_rate(node.spec.links, link)
        assert flow <= limit * _ROUNDING, f"{link} of {node.spec.id}: {flow} of {limit} bytes/s"


def check_tokens(engine: Engine) -> None:
    batch = engine.batch
    assert 0 <= batch.kv_used <= batch.kv_tokens, f"{engine.replica_id}: KV {batch.kv_used}"
    assert batch.running <= batch.max_num_seqs, f"{engine.replica_id}: {batch.running} sequences"
    inside = batch.running + batch.waiting
    assert inside == (len(engine.requests) if engine.serving else 0), engine.replica_id


def check_alarm(engine: Engine) -> None:
    """Whatever its batch does next is not slept through."""
    next_us = engine.batch.next_us() if engine.serving else None
    if next_us is not None:
        assert 0 <= engine.due_us <= next_us, f"{engine.replica_id} sleeps until {engine.due_us}"
