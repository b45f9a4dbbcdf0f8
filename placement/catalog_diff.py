"""Two catalogs in, what changed out. A pure function, so a reload can be shown before it is done.

In: the catalog in force and the one to come. Out: `CatalogDiff`. Never: decides on applying it.
"""

from placement.catalog import Catalog, Frozen, ModelId


class CatalogDiff(Frozen, frozen=True, kw_only=True):
    """Ids of models, in the order of the file they stand in. `changed` differ in any key.

    `nodes_changed` covers everything a running fleet cannot change: nodes, time scale, seed, and
    the interpreter of its vLLM engines.
    """

    added: tuple[ModelId, ...] = ()
    removed: tuple[ModelId, ...] = ()
    changed: tuple[ModelId, ...] = ()
    nodes_changed: bool = False
    tenants_changed: bool = False
    policy_changed: bool = False
    telemetry_changed: bool = False
    forecast_changed: bool = False

    @property
    def empty(self) -> bool:
        return self == CatalogDiff()


def diff_catalogs(old: Catalog, new: Catalog) -> CatalogDiff:
    before = {spec.id: spec for spec in old.models}
    after = {spec.id: spec for spec in new.models}
    return CatalogDiff(
        added=tuple(i for i in after if i not in before),
        removed=tuple(i for i in before if i not in after),
        changed=tuple(i for i, spec in after.items() if i in before and before[i] != spec),
        nodes_changed=_fixed(old) != _fixed(new),
        tenants_changed=old.tenants != new.tenants,
        policy_changed=old.policy != new.policy,
        telemetry_changed=old.telemetry != new.telemetry,
        forecast_changed=old.forecast != new.forecast,
    )


def _fixed(catalog: Catalog) -> tuple[object, ...]:
    return catalog.nodes, catalog.time_scale, catalog.seed, catalog.vllm_python
