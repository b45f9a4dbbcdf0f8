"""Which arguments of the vLLM server belong to Warmtide, and so may not stand in a catalog.

In: one entry of `engine_args`. Out: why it is refused and what to do instead, or None.
Never: knows the flags that may be used: there are hundreds, and vLLM checks them itself.

vLLM's parser takes `_` for `-`, `=` or `.` after a name, and any beginning of a name that is
unique. Whatever could be read as a flag of ours is refused.
"""

import re
from typing import NamedTuple

_KEY = "It follows from the model's key `{}` in the catalog"
_GUARD = "Remove it: engines listen on loopback behind Warmtide's guard"
_FIXED = "Remove it: Warmtide runs one server per replica and needs it as it is"

OWNED: dict[str, str] = {
    "model": _KEY.format("source"),
    "served-model-name": _KEY.format("id"),
    "max-model-len": _KEY.format("max_model_len"),
    "max-num-seqs": _KEY.format("max_num_seqs"),
    "tensor-parallel-size": _KEY.format("gpus"),
    "kv-cache-memory-bytes": _KEY.format("kv_cache"),
    "gpu-memory-utilization": _KEY.format("kv_cache"),
    "enable-lora": _KEY.format("adapters"),
    "lora-modules": _KEY.format("adapters"),
    "enable-sleep-mode": "Remove it: it is set where the device allows it",
    **dict.fromkeys(
        (
            *("host", "port", "uds", "grpc-port", "root-path", "middleware", "api-key"),
            *("ssl-keyfile", "ssl-certfile", "ssl-ca-certs", "ssl-cert-reqs", "ssl-ciphers"),
            *("enable-ssl-refresh", "disable-fastapi-docs", "enable-offline-docs"),
        ),
        _GUARD,
    ),
    **dict.fromkeys(
        (
            *("config", "headless", "api-server-count", "pipeline-parallel-size", "nnodes"),
            *("node-rank", "master-addr", "master-port", "distributed-executor-backend"),
            *("data-parallel-size", "data-parallel-size-local", "data-parallel-rank"),
            *("data-parallel-address", "data-parallel-rpc-port", "data-parallel-backend"),
        ),
        _FIXED,
    ),
    "hf-token": "A secret on a command line can be read by everyone: set HF_TOKEN instead",
}
"""Every flag that is ours, in its long form, and what to do instead of writing it."""

_SHORT_FORMS = "tpdnr"
"""First letters of single-dash flags for parallelism and ranks: -tp, -pp, -dp…, -n, -r."""


class Refused(NamedTuple):
    what: str
    remedy: str


def refused(argument: str) -> Refused | None:
    """Why this argument may not be used. Values of other flags pass: vLLM judges them."""
    if re.search(r"[\x00-\x1f\x7f]", argument):
        return Refused("a control character in an argument", "Write each argument plainly")
    if argument.startswith("--"):
        name = re.split(r"[=.+]", argument[2:], maxsplit=1)[0].replace("_", "-").lower()
        owner = _owner_of(name.removeprefix("no-"))
        if owner is not None:
            return Refused(f"--{owner} is set by Warmtide", OWNED[owner])
    elif re.match(rf"-[{_SHORT_FORMS}]", argument):
        return Refused("parallelism and ranks are set by Warmtide", _KEY.format("gpus"))
    return None


def _owner_of(name: str) -> str | None:
    """The flag of ours that this is, or that it is a beginning of."""
    if not name:
        return None
    return name if name in OWNED else next((o for o in OWNED if o.startswith(name)), None)
