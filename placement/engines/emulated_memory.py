"""Memory of one emulated node: bytes on each GPU and in the host, by replica.

In: takes and frees by owner. Out: what is used, and `OutOfMemoryError` where it does not fit.
Never: knows time, rungs or engines. What is taken is never more than what is there.
"""

from placement.catalog import NodeSpec


class OutOfMemoryError(Exception):
    """Said as the engine would say it; `need_bytes` and `free_bytes` for the ledger."""

    def __init__(self, where: str, need_bytes: int, free_bytes: int) -> None:
        super().__init__(
            f"{where} out of memory: tried to allocate {need_bytes / 2**30:.2f} GiB, "
            f"{max(free_bytes, 0) / 2**30:.2f} GiB is free"
        )
        self.need_bytes = need_bytes
        self.free_bytes = free_bytes


class NodeMemory:
    """A ledger that stands for NVML and RSS: the truth that agents measure."""

    def __init__(self, node: NodeSpec) -> None:
        self.hbm_bytes = node.hbm_bytes
        self.host_total_bytes = node.host_bytes
        self._gpus: list[dict[str, int]] = [{} for _ in range(node.gpus)]
        self._host: dict[str, int] = {}

    @property
    def gpus(self) -> int:
        return len(self._gpus)

    def gpu_used(self, gpu_id: int) -> int:
        return sum(self._gpus[gpu_id].values())

    def gpu_free(self, gpu_id: int) -> int:
        return self.hbm_bytes - self.gpu_used(gpu_id)

    def host_used(self) -> int:
        return sum(self._host.values())

    def held(self, owner: str, gpu_id: int) -> int:
        return self._gpus[gpu_id].get(owner, 0)

    def set_gpus(self, owner: str, gpu_ids: tuple[int, ...], n_bytes: int) -> None:
        """From now on the owner holds this much on each of these GPUs, or nothing changes."""
        for gpu_id in gpu_ids:
            more = n_bytes - self.held(owner, gpu_id)
            if more > self.gpu_free(gpu_id):
                raise OutOfMemoryError(f"CUDA device {gpu_id}", more, self.gpu_free(gpu_id))
        for gpu_id in gpu_ids:
            _put(self._gpus[gpu_id], owner, n_bytes)

    def set_host(self, owner: str, n_bytes: int) -> None:
        more = n_bytes - self._host.get(owner, 0)
        free = self.host_total_bytes - self.host_used()
        if more > free:
            raise OutOfMemoryError("Host", more, free)
        _put(self._host, owner, n_bytes)

    def drop(self, owner: str) -> None:
        """The owner's process is gone, and with it all it held."""
        for held in (*self._gpus, self._host):
            held.pop(owner, None)


def _put(held: dict[str, int], owner: str, n_bytes: int) -> None:
    assert n_bytes >= 0, "nobody holds less than nothing"
    held[owner] = n_bytes
    if not n_bytes:
        del held[owner]
