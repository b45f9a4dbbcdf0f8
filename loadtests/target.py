"""What a replay is aimed at: its scale, its models and what serves them. An edge.

In: addresses, a key, a token. Out: `Target`. Never: changes the fleet, guesses an engine kind.
"""

from typing import NamedTuple, TypeVar

import httpx
import msgspec

from loadtests.errors import AskedError
from loadtests.fleet_process import FleetError
from placement.catalog import EngineKind, Task

TIMEOUT_S = 15.0
EVIDENCE = {
    EngineKind.EMULATED: "emulated",
    EngineKind.LLAMACPP: "real-cpu",
}


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay wants to know of a model; other keys of the catalog are let pass."""

    id: str
    engine: EngineKind
    tasks: tuple[Task, ...] = (Task.CHAT,)
    on_cpu: bool = False

    @property
    def evidence(self) -> str | None:
        """What figures of this model are; None where that depends on who runs it."""
        real = "real-cpu" if self.on_cpu else "real-gpu"
        return real if self.engine is EngineKind.VLLM else EVIDENCE.get(self.engine)


class Target(NamedTuple):
    """A running gateway. `served` is what its admin port tells of its models, if it tells."""

    url: str
    time_scale: float
    models: tuple[str, ...]
    served: dict[str, Served]
    notes: tuple[str, ...] = ()

    def dealt_to(self) -> list[str]:
        """What streams are dealt to unless told otherwise: the emulated models that chat."""
        if not self.served:
            return list(self.models)
        fit = [model for model in self.models if model in self.served and not self.unfit(model)]
        emulated = [m for m in fit if self.served[m].engine is EngineKind.EMULATED]
        return emulated or fit

    def unfit(self, model: str) -> str:
        """Why a model cannot be replayed here, or nothing."""
        served = self.served.get(model)
        if served is None:
            return ""
        if Task.CHAT not in served.tasks:
            return "it serves no chat, and a replay sends chats"
        if self.time_scale != 1.0 and served.engine is not EngineKind.EMULATED:
            return "real engines keep wall time; replay them at --speed 1"
        return ""

    def check(self, models: list[str]) -> None:
        """Refuse models named by the user that cannot be replayed."""
        for model in models:
            if why := self.unfit(model):
                raise AskedError(f"{model}: {why}")

    def evidence(self, models: tuple[str, ...]) -> dict[str, str | None]:
        """The label of each model's figures; none where nobody told what serves it."""
        found = {model: self.served.get(model) for model in models}
        return {m: served.evidence if served else None for m, served in found.items()}


async def look_at(
    url: str, admin_url: str, token: str, *, speed: float | None, api_key: str
) -> Target:
    """Ask the gateway for its models and the admin port for the scale; refuse another `speed`."""
    models = await _models(url, api_key)
    scale = await _told(admin_url, "/status", token, _Status)
    if scale is None:
        taken = speed or 1.0
        note = f"no admin port answered at {admin_url}: time scale {taken:g} is taken on trust"
        return Target(url, taken, models, {}, (note,))
    if speed is not None and speed != scale.time_scale:
        raise AskedError(
            f"the fleet at {url} runs {scale.time_scale:g} times wall time, not {speed:g}: leave "
            f"--speed out, or start a fleet with `warmtide up --time-scale {speed:g}`"
        )
    catalog = await _told(admin_url, "/catalog", token, _Catalog) or _Catalog()
    return Target(url, scale.time_scale, models, {served.id: served for served in catalog.models})


async def _models(url: str, api_key: str) -> tuple[str, ...]:
    """Names that the gateway serves, in its order."""
    address = url.rstrip("/").removesuffix("/v1") + "/v1/models"
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as http:
            found = await http.get(address, headers=headers)
            found.raise_for_status()
            names = tuple(str(entry["id"]) for entry in found.json()["data"])
    except httpx.HTTPStatusError as error:
        hint = " Give a key with --api-key-file." if error.response.status_code == 401 else ""
        raise FleetError(f"{address} answered {error.response.status_code}.{hint}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        message = f"no gateway answers at {url} ({error}). Start one with `warmtide up`."
        raise FleetError(message) from error
    except (ValueError, KeyError, TypeError) as error:
        raise FleetError(f"{address} did not answer with a list of models") from error
    if not names:
        raise FleetError(f"the gateway at {url} serves no model")
    return names


class _Status(msgspec.Struct):
    time_scale: float


class _Catalog(msgspec.Struct):
    models: tuple[Served, ...] = ()


T = TypeVar("T")


async def _told(admin_url: str, path: str, token: str, kind: type[T]) -> T | None:
    """A document of the admin port, or none where none of ours answers."""
    headers = {"authorization": f"Bearer {token}"}
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as http:
            found = await http.get(admin_url.rstrip("/") + path, headers=headers)
            found.raise_for_status()
        return msgspec.json.decode(found.content, type=kind)
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError, UnicodeError):
        return None
