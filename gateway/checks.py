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
    if open_to_others(catalog, host):
        raise UnfitError(
            f"{host} is reachable from elsewhere and the catalog declares no tenants: add "
            "`tenants:` with keys (`warmtide key new`), or keep --host 127.0.0.1"
        )
    if missing := missing_secrets(catalog, secret_of):
        raise UnfitError(
            f"set {', '.join(missing)} in the gateway's environment: "
            "the catalog takes API keys from there"
        )
    if unfit := unfit_secrets(catalog, secret_of):
        raise UnfitError(
            f"the API key in {', '.join(unfit)} has a character that is not printable ASCII, "
            "perhaps a line break at its end: set it anew, without it"
        )


def open_to_others(catalog: Catalog, host: str) -> bool:
    """Whether anybody on the network could ask for anything."""
    return host not in LOOPBACK and not catalog.tenants


def secrets_wanted(catalog: Catalog) -> list[str]:
    """Names of the variables that hold the keys of external servers."""
    return sorted({spec.api_key_env for spec in catalog.models if spec.api_key_env})


def missing_secrets(catalog: Catalog, secret_of: Callable[[str], str]) -> list[str]:
    return [name for name in secrets_wanted(catalog) if not secret_of(name)]


def unfit_secrets(catalog: Catalog, secret_of: Callable[[str], str]) -> list[str]:
    """Set, but no HTTP header can carry them."""
    found = {name: secret_of(name) for name in secrets_wanted(catalog)}
    return [name for name, secret in found.items() if secret and not _fits_a_header(secret)]


def _fits_a_header(secret: str) -> bool:
    return secret.isascii() and secret.isprintable() and secret == secret.strip()
