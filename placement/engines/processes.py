"""Engine processes of one kind on one node: one per replica, each with a folder of its own. ✎

In: what to run for which replica. Out: who it is, whether it lives, its end. All of it is on disk,
so that a restarted agent, or whoever cleans up, finds what a killed one began.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import msgspec

from placement.engines.base import (
    IDENTITY,
    Identity,
    end,
    identity_of_spec,
    read_identity,
    spawn,
    write_json,
)

_LOG_TAIL_BYTES = 64 * 1024


class _Begun(msgspec.Struct):
    """All that is read back of a spec here."""

    replica_id: str


class Processes:
    """`spec_name` tells the kinds apart: every folder of a kind holds a file of this name."""

    def __init__(self, folder: Path, spec_name: str, *, grace_s: float) -> None:
        self._folder = folder / "engines"
        self._spec_name = spec_name
        self._grace_s = grace_s
        self._started: dict[str, Identity] = {}
        """Still to be ended when their files have been removed."""

    def place(self, replica_id: str) -> Path:
        return self._folder / quote(replica_id, safe="")

    def spec_file(self, replica_id: str) -> Path:
        return self.place(replica_id) / self._spec_name

    def spec_files(self) -> list[Path]:
        """Of everything that was to be started and not ended, whether or not it runs yet."""
        return sorted(self._folder.glob(f"*/{self._spec_name}"))

    def log(self, replica_id: str) -> Path:
        return self.place(replica_id) / "engine.log"

    async def begin(
        self,
        replica_id: str,
        spec: object,
        argv: list[str],
        *,
        python: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Write down what is to be started, which holds its `replica_id`, and start it."""
        write_json(self.spec_file(replica_id), spec)
        with_python = {} if python is None else {"python": python}
        self._started[replica_id] = await spawn(
            argv,
            log=self.log(replica_id),
            identity_file=self.place(replica_id) / f"engine{IDENTITY}",
            env=env,
            **with_python,
        )

    def identity(self, replica_id: str) -> Identity | None:
        return self._identity_at(self.place(replica_id))

    def begun(self) -> Iterator[tuple[str, Path, Identity]]:
        """Everything that was started here and not ended, alive or not."""
        for spec_file in self.spec_files():
            if (identity := self._identity_at(spec_file.parent)) is not None:
                begun = msgspec.json.decode(spec_file.read_bytes(), type=_Begun)
                yield begun.replica_id, spec_file.parent, identity

    async def end(self, replica_id: str) -> None:
        """End it with all its helpers, also where only helpers are left."""
        known = self._started.pop(replica_id, None)
        if not self.spec_file(replica_id).exists() and known is None:
            return  # some other kind's
        identity = self.identity(replica_id) or known
        if identity is not None:
            await end(identity, grace_s=self._grace_s)
        (self.place(replica_id) / f"engine{IDENTITY}").unlink(missing_ok=True)
        self.spec_file(replica_id).unlink(missing_ok=True)

    async def end_all(self) -> None:
        for replica_id in {*(name for name, _, _ in self.begun()), *self._started}:
            await self.end(replica_id)

    async def end_forgotten(self) -> None:
        """End what was started here and that no file names any more."""
        for replica_id, identity in self._started.items():
            if identity != self.identity(replica_id):
                await end(identity)

    def log_tail(self, replica_id: str) -> str:
        try:
            with self.log(replica_id).open("rb") as file:
                file.seek(max(file.seek(0, 2) - _LOG_TAIL_BYTES, 0))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def _identity_at(self, place: Path) -> Identity | None:
        known = read_identity(place / f"engine{IDENTITY}")
        return known or identity_of_spec(place / "ready.json", place / self._spec_name)
