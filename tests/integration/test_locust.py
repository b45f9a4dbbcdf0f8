"""The locustfile under the unmodified `locust` command: its rows agree with what servers saw."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from loadtests.visits import Kind
from tests.integration.running import Gateway, catalog_text, digest, emulated, python, running
from tests.loadtests.fake_openai import fake_openai

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SCALE = 50.0
OPEN_KEY, BUSY_KEY = "wt-load-open", "wt-load-busy"
TENANTS = f"open 3 {OPEN_KEY}\nbusy 1 {BUSY_KEY}\n"
USERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What locust told: its exit code, what it printed, its table by (type, name)."""

    code: int
    said: str
    rows: dict[tuple[str, str], tuple[int, int]]
    """Requests and failures."""
    failures: dict[str, Counter[str]]

    def total(self, *types: str) -> int:
        return sum(count for (kind, _), (count, _) in self.rows.items() if kind in types)

    def failed(self) -> int:
        return sum(failed for _, failed in self.rows.values())


async def locust(folder: Path, url: str, *arguments: str, tenants: str = "") -> Told:
    """A headless run of at most some seconds, told by the tables that it prints at its end."""
    done = await python(
        *("-m", "locust", "-f", str(ROOT / "loadtests" / "locustfile.py"), "--headless"),
        *("-H", url, "--stop-timeout", "30", "--only-summary", *arguments),
        env={**os.environ, "WARMTIDE_LOAD_TENANTS": tenants},
        cwd=folder,
    )
    said = done.out + done.err
    return Told(code=done.code, said=said, rows=_rows(said), failures=_failures(said))


ROW = re.compile(r"^(\w+(?: \w+)?) {2,}(\S+) +(\d+) +(\d+)\(", re.MULTILINE)
ERROR = re.compile(r"^(\d+) +stream (\S+): UnansweredError\('(.*)'\)", re.MULTILINE)


def _rows(said: str) -> dict[tuple[str, str], tuple[int, int]]:
    return {(row[1], row[2]): (int(row[3]), int(row[4])) for row in ROW.finditer(said)}


def _failures(said: str) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for row in ERROR.finditer(said):
        found.setdefault(row[2], Counter())[row[3]] += int(row[1])
    return found


# --- a gateway's own count


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """Two models that chat, one that does not, and a tenant with a limit."""
    models = [
        emulated("llama-8b"),
        emulated("qwen-8b"),
        emulated("bge-m3", tasks=["embeddings"], kv_cache="1 GB", weights="1.1 GB"),
    ]
    tenants = [
        {"id": "open", "keys": [digest(OPEN_KEY)]},
        {"id": "busy", "keys": [digest(BUSY_KEY)], "max_in_flight": 2},
    ]
    with running(tmp_path, catalog_text(models, tenants=tenants), time_scale=SCALE) as up:
        yield up


def counted(gateway: Gateway) -> Counter[str]:
    """What the gateway says became of every request, all models together."""
    totals: Counter[str] = Counter()
    for row in gateway.status()["models"]:
        totals.update(row["outcomes"])
        totals.update({f"refused {code}": count for code, count in row["refused"].items()})
        assert (row["held"], row["in_flight"]) == (0, 0)
    return totals


async def test_client_and_gateway_count_the_same_requests(gateway: Gateway, tmp_path: Path) -> None:
    told = await locust(
        tmp_path,
        gateway.url,
        *("--users", str(USERS), "--spawn-rate", str(USERS), "--run-time", "6s"),
        *("--think-s", "0.1", "--output-tokens", "150", "--leave-within-s", "0.05"),
        *("--requests-max", "3000"),
        tenants=TENANTS,
    )
    assert told.code == 0, told.said
    assert told.failed() == 0, f"nothing is lost, nothing is cut:\n{told.said}"
    seen = counted(gateway)

    answered, left = told.total(*Kind), told.total("left")
    assert seen["refused rate_limit_exceeded"] == told.total("limited") > 0
    assert seen["refused unsupported_task"] == told.total("no chat") > 0
    assert seen["refused"] == told.total("limited", "no chat")
    assert seen["cut"] == 0
    # Two counts of one event from two sides: a client that leaves while the last bytes are on
    # their way left an answer that was given, and one stopped at the end may have sent nothing.
    stopped = told.total("stopped")
    assert stopped <= USERS
    ended = seen["answered"] + seen["cancelled"]
    assert answered + left <= ended <= answered + left + stopped
    assert answered <= seen["answered"]
    assert 0 < seen["cancelled"] <= left + stopped

    for model in ("llama-8b", "qwen-8b"):
        streams, _ = told.rows["stream", model]
        assert told.rows["TTFT", model][0] >= streams > 0
        assert 0 < told.rows["ITL", model][0] <= told.rows["TTFT", model][0]
        assert told.rows["chat", model][0] > 0
    assert {name for kind, name in told.rows if kind == "limited"} == {"busy"}
    for key in (OPEN_KEY, BUSY_KEY):
        assert key not in told.said


# --- any other server, and each way to end


async def test_each_way_to_end_has_a_row_and_a_name(tmp_path: Path) -> None:
    ends = {
        "good": "",
        "held": "",
        "refuse": "refused 503 queue_full",
        "cut-by-error": "cut 200 engine_broke",
        "cut-by-death": "cut broken_stream",
        "dead-while-held": "lost no_answer",
        "vanish": "lost no_answer",
        "nonsense": "lost no_answer",
        "never": "lost no_answer",
    }
    async with fake_openai() as fake:
        fake.models = list(ends)
        told = await locust(
            tmp_path,
            f"{fake.url}/v1",
            *("StreamUser", "--users", "6", "--spawn-rate", "6", "--run-time", "60s"),
            *("--think-s", "0.01", "--patience-s", "0.3", "--requests-max", "200"),
        )
    assert told.code == 1, "failures are an exit code"
    asked = Counter(str(body["model"]) for body in fake.bodies)
    assert sum(asked.values()) <= 200, "the bound on requests holds, and nobody is asked twice"
    assert set(asked) == set(ends)
    for model, error in ends.items():
        count, failed = told.rows["stream", model]
        stopped, _ = told.rows.get(("stopped", model), (0, 0))
        assert count <= asked[model] <= count + stopped
        assert failed == (count if error else 0)
        assert told.failures.get(model, Counter()) == ({error: count} if error else {})
    assert told.rows["TTFT", "cut-by-death"] == (told.rows["stream", "cut-by-death"][0], 0)
    assert ("TTFT", "dead-while-held") not in told.rows, "a heartbeat is no token"


# --- mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--models", "a=x"), "--models a=x: write"),
        (("--tenants-file", "keys.txt"), "others may read it; run `chmod 600 keys.txt`"),
        (("--host", "127.0.0.1:8000"), "name the address"),
        ((), "nobody answers at http://127.0.0.1:9"),
    ],
)
async def test_a_mistake_is_one_sentence_and_nothing_is_sent(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    (tmp_path / "keys.txt").write_text(TENANTS)
    (tmp_path / "keys.txt").chmod(0o644)
    told = await locust(tmp_path, "http://127.0.0.1:9", "--run-time", "30s", *arguments)
    assert told.code == 2, told.said
    assert words in told.said
    assert "Traceback" not in told.said
    assert OPEN_KEY not in told.said
    assert told.rows == {}
