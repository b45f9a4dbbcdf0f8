"""The facts of a decision, from a file or from a running gateway, and into one. An edge.

In: a file's name, a state directory. Out: `Recorded`; or an `AskedError` with the file, the field
and what to do. Never: plans.
"""

from pathlib import Path

from gateway import state_dir
from gateway.admin_client import ask_bytes
from gateway.progress import Steps
from gateway.words import FAILED, fail
from loadtests.errors import AskedError
from loadtests.forecasts.files import Drawing
from placement.planning.recorded import ANEW, Recorded, RecordError, read, written

RECORD_BYTES_MAX = 2**30


def record_in(path: Path) -> Recorded:
    try:
        with path.open("rb") as file:
            data = file.read(RECORD_BYTES_MAX + 1)
    except OSError as error:
        raise AskedError(
            f"{path}: cannot be read: {error.strerror}; name a record of facts. {ANEW}"
        ) from None
    if len(data) > RECORD_BYTES_MAX:
        raise AskedError(f"{path}: is larger than any record of facts. {ANEW}")
    return _read(data, str(path))


def record_of_gateway(given: Path | None, shown: Steps, *, as_json: bool) -> Recorded:
    """Of the newest round; without a gateway the command ends here."""
    folder = state_dir.named(given)
    card = state_dir.read_card(folder)
    if card is None:
        hint = f"{state_dir.no_gateway(folder)}, or name a record of facts"
        fail(hint, as_json=as_json, code=FAILED)
    return _read(ask_bytes(card, "/plan/facts", shown, as_json=as_json), card.admin_url)


def _read(data: bytes, where: str) -> Recorded:
    try:
        return read(data)
    except RecordError as error:
        raise AskedError(f"{where}: {error}") from None


def keep(path: Path, record: Recorded) -> dict[str, object]:
    """Write the record whole; what to say of it."""
    keep_record(path, record)
    return {
        "file": str(path),
        "source": record.source,
        "policy": record.policy,
        "now_us": record.now_us,
        "snapshot_version": record.snapshot.version,
    }


def keep_record(path: Path, record: Recorded) -> None:
    fresh = path.with_name(f"{path.name}.new")
    try:
        fresh.write_bytes(written(record))
        fresh.replace(path)
    except OSError as error:
        raise AskedError(
            f"{path}: cannot be written: {error.strerror}; name another place"
        ) from None


def drawing() -> Drawing:
    from loadtests.plans.report import plan_html, plan_png

    return Drawing(plan_png, plan_html)
