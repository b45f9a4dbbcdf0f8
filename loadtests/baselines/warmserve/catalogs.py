"""The catalog as WarmServe runs with it: its configured KV size, its ablations' mechanism. Pure.

In: a catalog, flags. Out: a catalog in which only figures of models differ. Never: adds or removes.
"""

import msgspec

from loadtests.baselines.warmserve.flags import Flags
from placement.catalog import Catalog, ModelSpec

LLAMA2_7B_WEIGHTS_BYTES = 13_476_831_232
CONFIGURED_KV_BYTES_PER_TOKEN = 32 * 2**20 // 256
"""32 MiB for a block of 256 tokens: Llama-3-8B's, a quarter of Llama-2-7B's."""


def as_configured(catalog: Catalog, flags: Flags) -> Catalog:
    models = tuple(_model(spec, flags) for spec in catalog.models)
    return msgspec.structs.replace(catalog, models=models)


def _model(spec: ModelSpec, flags: Flags) -> ModelSpec:
    if not flags.lazy_kv:
        mechanism = msgspec.structs.replace(spec.mechanism, lazy_kv=False)
        spec = msgspec.structs.replace(spec, mechanism=mechanism)
    if flags.small_kv_of_7b and spec.weights_bytes == LLAMA2_7B_WEIGHTS_BYTES:
        spec = msgspec.structs.replace(spec, kv_bytes_per_token=CONFIGURED_KV_BYTES_PER_TOKEN)
    return spec
