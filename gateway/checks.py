"""Whether a catalog can be served by this gateway: the same at start and at a reload. Pure.

In: a catalog, the address it is served on, secrets by the name of their variable. Out: nothing, or
`UnfitError` in words. Never: looks at the environment itself, keeps a secret.
"""

from collections.abc import Callable

from placement.catalog import Catalog

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class UnfitError(Exception):
    """A good catalog that this gateway cannot serve as it runs; the text says what to do."""


def check_fit(catalog: Catalog, host: str, secret_of: Callable[[str], str]) -> None:
    """Raises `UnfitError`: open to others without tenants, or a key that nobody set or no header
    can carry."""
    if host not in LOOPBACK and not catalog.tenants:
        raise UnfitError(
            f"{host} is reachable from elsewhere and the catalog declares no tenants: add "
            "`tenants:` with keys (`warmtide key new`), or keep --host 127.0.0.1"
        )
    wanted = {spec.api_key_env for spec in catalog.models if spec.api_key_env}
    missing = sorted(name for name in wanted if not secret_of(name))
    if missing:
        raise UnfitError(
            f"set {', '.join(missing)} in the gateway's environment: "
            "the catalog takes API keys from there"
        )
    unfit = sorted(name for name in wanted if not _fits_a_header(secret_of(name)))
    if unfit:
        raise UnfitError(
            f"the API key in {', '.join(unfit)} has a character that is not printable ASCII, "
            "perhaps a line break at its end: set it anew, without it"
        )


def _fits_a_header(secret: str) -> bool:
    return secret.isascii() and secret.isprintable() and secret == secret.strip()
