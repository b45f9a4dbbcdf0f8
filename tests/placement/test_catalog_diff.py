"""A reload is known before it is done."""

from hypothesis import given
from hypothesis import strategies as st

from placement.catalog import ModelId, ModelSpec
from placement.catalog_diff import CatalogDiff, diff_catalogs
from tests.builders import GB, catalog, model, node


def test_models_come_go_and_change() -> None:
    old = catalog(model("stays"), model("goes"), model("grows"))
    new = catalog(model("comes"), model("stays"), model("grows", weights_bytes=20 * GB))
    assert diff_catalogs(old, new) == CatalogDiff(
        added=(ModelId("comes"),), removed=(ModelId("goes"),), changed=(ModelId("grows"),)
    )


def test_what_a_running_fleet_cannot_change_is_told_apart() -> None:
    old = catalog(model())
    assert diff_catalogs(old, catalog(model(), nodes=(node(gpus=4),))).nodes_changed
    assert diff_catalogs(old, catalog(model(), time_scale=2.0)).nodes_changed
    assert not diff_catalogs(old, catalog(model("other"))).nodes_changed


specs = st.lists(
    st.builds(model, st.sampled_from("abcde"), priority=st.integers(0, 2)), unique_by=lambda m: m.id
)


@given(specs, specs)
def test_a_diff_accounts_for_every_model(old: list[ModelSpec], new: list[ModelSpec]) -> None:
    diff = diff_catalogs(catalog(*old), catalog(*new))
    after = {m.id for m in old} - set(diff.removed) | set(diff.added)
    assert after == {m.id for m in new}
    assert diff_catalogs(catalog(*new), catalog(*new)).empty
