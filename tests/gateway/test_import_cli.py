"""`warmtide history import`: from files, and from something that speaks Prometheus' HTTP API."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner, Result

from gateway.history_cli import app
from gateway.prometheus import POINTS_MAX, overlapping
from gateway.words import BadInputError
from placement.clock import wall_us
from prewarm.calendars import US
from prewarm.history import read_rows

CATALOG = """
models:
  - {id: llama, engine: emulated, weights: 16 GB, aliases: [gpt-4o-mini]}
  - {id: qwen, engine: emulated, weights: 16 GB}
fleet:
  nodes:
    - {id: n0, gpu: H100-80GB, gpus: 2, host_memory: 256 GB}
"""
QUERY = "sum by (model) (increase(requests_total[5m]))"


@dataclass
class Peer:
    """A small server with the documented answers. `say(query) -> (status, body)` makes them."""

    say: Callable[[dict[str, str]], tuple[int, bytes]]
    asked: list[dict[str, str]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(say: Callable[[dict[str, str]], tuple[int, bytes]]) -> Iterator[Peer]:
    peer = Peer(say)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            split = urlsplit(self.path)
            assert split.path == "/api/v1/query_range"
            fields = {key: values[0] for key, values in parse_qs(split.query).items()}
            peer.asked.append(fields)
            peer.tokens.append(self.headers.get("authorization"))
            status, body = peer.say(fields)
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                pass  # the client has given up, as it should

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    peer.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def matrix(*series: tuple[dict[str, str], list[tuple[float, str]]]) -> bytes:
    """A success, as the documentation of `query_range` has it."""
    result = [{"metric": labels, "values": values} for labels, values in series]
    data = {"resultType": "matrix", "result": result}
    return json.dumps({"status": "success", "data": data}).encode()


def points(fields: dict[str, str]) -> list[float]:
    first, last, step = (float(fields[key]) for key in ("start", "end", "step"))
    assert (last - first) / step <= POINTS_MAX, "exceeded maximum resolution"
    return [first + i * step for i in range(round((last - first) / step) + 1)]


def steady(fields: dict[str, str]) -> tuple[int, bytes]:
    """Ten and a bit in every window, as the extrapolation of `increase` makes them."""
    samples = [(at, "10.03") for at in points(fields)]
    return 200, matrix(({"model": "llama"}, samples))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.yaml"
    path.write_text(CATALOG, encoding="utf-8")
    return path


def run(state: Path, *words: object) -> Result:
    texts = ["import", *map(str, words), "--state-dir", str(state)]
    return CliRunner().invoke(app, texts)


def told(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def counts(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "demand.csv"
    path.write_text(text, encoding="utf-8")
    return path


def recent(windows: int, *columns: str) -> str:
    """A counts file of five-minute windows, the last of which is over."""
    start_us = wall_us() // (300 * US) * 300 * US - windows * 300 * US
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=start_us)
    rows = [
        ",".join(
            [f"{start + timedelta(minutes=5 * i):%Y-%m-%dT%H:%M:%SZ}"] + [str(i)] * len(columns)
        )
        for i in range(windows)
    ]
    return "\n".join([",".join(["time", *columns]), *rows])


# --- files


def test_a_file_is_imported_under_the_names_of_the_catalog(
    tmp_path: Path, state: Path, catalog: Path
) -> None:
    file = counts(tmp_path, recent(6, "gpt-4o-mini", "c0", "c1"))
    words = (file, "--catalog", catalog, "--map", "c0=qwen", "--json")
    document = told(run(state, *words))
    assert document["models"] == {
        "llama": {"windows": 6, "requests": 15},
        "qwen": {"windows": 6, "requests": 15},
    }
    assert document["unknown"] == ["c1"]
    again = told(run(state, *words))
    assert again["windows_written"] == document["windows_written"] == 12
    rows = list(read_rows(state / "history.db", 300))
    assert sum(row.offered for row in rows) == 30


def test_people_are_told_the_same(tmp_path: Path, state: Path, catalog: Path) -> None:
    text = recent(6, "llama", "c1").replace(",3,3", ",-3,3")
    result = run(state, counts(tmp_path, text), "--catalog", catalog)
    assert result.exit_code == 0
    for said in (
        f"5 windows written into {state}/history.db",
        "llama: 12 requests in 5 windows",
        "left out: c1; name their models with --map column=model",
        "llama: 1 x a negative value, now a hole (line 5: -3)",
    ):
        assert said in result.stdout


def test_a_dry_run_changes_nothing(tmp_path: Path, state: Path) -> None:
    document = told(run(state, counts(tmp_path, recent(6, "m")), "--dry-run", "--json"))
    assert (document["windows_written"], document["names_checked"]) == (6, False)
    assert not state.exists()


def test_exported_demand_is_imported_elsewhere(tmp_path: Path, state: Path) -> None:
    told(run(state, counts(tmp_path, recent(6, "m")), "--json"))
    out = tmp_path / "out.csv"
    result = CliRunner().invoke(app, ["export", "--out", str(out), "--state-dir", str(state)])
    assert result.exit_code == 0, result.output
    other = tmp_path / "other"
    told(run(other, out, "--json"))
    assert list(read_rows(other / "history.db", 300)) == list(read_rows(state / "history.db", 300))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time,m\n2199-01-01,1\n2199-01-01T00:05,2\n", "still to come"),
        ("just words\n", "is no table"),
        ("t_s,m\n0,1\n3600,2\n", "rows are 1 h apart"),
    ],
)
def test_a_file_that_cannot_be_imported_ends_with_two_and_why(
    tmp_path: Path, state: Path, text: str, said: str
) -> None:
    result = run(state, counts(tmp_path, text))
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (state / "history.db").exists()


def test_a_name_that_is_not_there_is_an_error(tmp_path: Path, state: Path, catalog: Path) -> None:
    file = counts(tmp_path, recent(2, "c0"))
    for mapping, said in (
        ("c0=lama", "the catalog has no lama; llama, qwen"),
        ("c9=llama", "has no c9; c0"),
        ("c0", "write column=model"),
    ):
        result = run(state, file, "--catalog", catalog, "--map", mapping)
        assert isinstance(result.exception, BadInputError)
        assert said in str(result.exception)
    result = run(state, file, "--catalog", catalog)
    assert "no column is of a model in the catalog: c0" in str(result.exception)


# --- Prometheus


def test_the_value_at_a_moment_is_what_the_window_before_it_counted(
    state: Path, catalog: Path
) -> None:
    now_us = wall_us()
    with serving(steady) as peer:
        words = ("--prometheus", peer.url, "--query", QUERY, "--start", "1h")
        document = told(run(state, *words, "--catalog", catalog, "--json"))
    assert document["models"] == {"llama": {"windows": 12, "requests": 120}}
    assert len(peer.asked) == 1
    rows = list(read_rows(state / "history.db", 300))
    last_us = int(float(peer.asked[0]["end"]) * US)
    assert now_us - 300 * US <= last_us <= wall_us()
    assert rows[-1].start_us + 300 * US == last_us
    assert {row.offered for row in rows} == {10}


def test_long_times_are_asked_for_in_pieces_that_a_prometheus_grants(state: Path) -> None:
    query = QUERY.replace("[5m]", "[1m]")
    with serving(steady) as peer:
        words = ("--prometheus", peer.url, "--query", query, "--start", "20d", "--step", "1min")
        document = told(run(state, *words, "--json"))
    # 20 days are 28,800 minutes: 11,000 and 11,000 and 6,800.
    assert [len(points(fields)) for fields in peer.asked] == [11_000, 11_000, 6_800]
    assert float(peer.asked[1]["start"]) - float(peer.asked[0]["end"]) == 60
    first_s, last_s = float(peer.asked[0]["start"]) - 60, float(peer.asked[-1]["end"])
    fives = int(last_s // 300 - -(-first_s // 300))
    assert document["models"]["llama"] == {"windows": fives, "requests": fives * 50}


def test_what_is_not_there_or_no_number_is_a_hole(state: Path) -> None:
    def gaps(fields: dict[str, str]) -> tuple[int, bytes]:
        at = points(fields)
        values = [(at[0], "1"), (at[1], "NaN"), (at[2], "+Inf"), (at[5], "6"), (1e308, "7")]
        return 200, matrix(({"model": "m"}, values))

    with serving(gaps) as peer:
        words = ("--prometheus", peer.url, "--query", QUERY, "--start", "30min", "--json")
        document = told(run(state, *words))
    rows = list(read_rows(state / "history.db", 300))
    assert [(row.start_us - rows[0].start_us) // (300 * US) for row in rows] == [0, 5]
    assert [row.offered for row in rows] == [1, 6]
    assert "1 x an infinite value, now a hole (window 3: inf)" in document["notes"]["m"]


def test_tokens_are_asked_for_with_queries_of_their_own(state: Path) -> None:
    def by_query(fields: dict[str, str]) -> tuple[int, bytes]:
        value = {"r": "2", "p": "70", "o": "9"}[fields["query"][0]]
        return 200, matrix(({"model": "m"}, [(at, value) for at in points(fields)]))

    with serving(by_query) as peer:
        words = ("--prometheus", peer.url, "--query", "r", "--prompt-query", "p")
        told(run(state, *words, "--output-query", "o", "--start", "10min", "--json"))
    rows = list(read_rows(state / "history.db", 300))
    assert [(r.offered, r.prompt_tokens, r.output_tokens) for r in rows] == [(2, 70, 9)] * 2


def test_a_token_comes_from_a_variable_or_a_file_and_is_never_shown(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROM_TOKEN", "sesame")
    file = tmp_path / "token"
    file.write_text("sesame\n")
    with serving(steady) as peer:
        words = ("--prometheus", peer.url, "--query", QUERY, "--start", "1h", "--json")
        for more in (("--token-env", "PROM_TOKEN"), ("--token-file", file)):
            assert "sesame" not in run(state, *words, *more).output
    assert peer.tokens == ["Bearer sesame"] * 2


@pytest.mark.parametrize("written", ["open\nsesame\n", "s\u00e9same", "open sesame", " \n"])
def test_what_is_no_token_is_refused_without_showing_it(
    tmp_path: Path, state: Path, written: str
) -> None:
    file = tmp_path / "token"
    file.write_text(written, encoding="utf-8")
    with serving(steady) as peer:
        words = ("--prometheus", peer.url, "--query", QUERY, "--start", "1h")
        done = run(state, *words, "--token-file", file)
    said = str(done.exception)
    assert isinstance(done.exception, BadInputError)
    assert "holds no bearer token" in said
    assert "same" not in said.replace(str(file), "")
    assert peer.tokens == []


def test_more_windows_than_fit_in_memory_are_not_made(state: Path) -> None:
    """A hundred models over 20 000 days of 288 windows are 576 million cells."""

    def many(_: dict[str, str]) -> tuple[int, bytes]:
        return 200, matrix(*(({"model": f"m{i}"}, []) for i in range(100)))

    with serving(many) as peer:
        done = run(state, "--prometheus", peer.url, "--query", QUERY, "--start", "20000d")
    assert done.exit_code == 1
    assert "knows 100 series, too many for 5760000 windows each" in done.output


def refusal(status: int, **answer: str) -> Callable[[dict[str, str]], tuple[int, bytes]]:
    return lambda _: (status, json.dumps({"status": "error", **answer}).encode())


@pytest.mark.parametrize(
    ("say", "said"),
    [
        (
            refusal(400, errorType="bad_data", error="1:5: parse error: unexpected end"),
            "(400) says bad_data: 1:5: parse error: unexpected end",
        ),
        (refusal(503, errorType="timeout", error="query timed out"), "timeout: query timed out"),
        (lambda _: (401, b"who are you?"), "who are you?; give a token with --token-env"),
        (lambda _: (502, b"<html>bad gateway</html>"), "(502) says no Prometheus answer: <html>"),
        (lambda _: (200, b"[" * 100_000), "says no Prometheus answer"),
        (
            lambda _: (200, b'{"status":"success","data":{"resultType":"scalar","result":[]}}'),
            "answers with a scalar, not a matrix",
        ),
        (
            lambda _: (200, matrix(({"job": "x", "pod": "y"}, []))),
            "a series has no label 'model' (it has job, pod): name the one",
        ),
        (
            lambda _: (200, matrix(({"model": "m", "pod": "x"}, []), ({"model": "m"}, []))),
            "several series have model='m': add them up in the query",
        ),
    ],
)
def test_an_answer_that_is_none_is_shown_in_words_and_nothing_is_imported(
    state: Path, say: Callable[[dict[str, str]], tuple[int, bytes]], said: str
) -> None:
    with serving(say) as peer:
        result = run(state, "--prometheus", peer.url, "--query", QUERY, "--start", "1h")
    assert result.exit_code == 1
    assert said in result.stderr
    assert not (state / "history.db").exists()


def test_a_slow_one_is_given_up(state: Path) -> None:
    release = threading.Event()

    def slow(fields: dict[str, str]) -> tuple[int, bytes]:
        release.wait(30)
        return steady(fields)

    with serving(slow) as peer:
        began = time.monotonic()
        words = ("--prometheus", peer.url, "--query", QUERY, "--start", "1h", "--timeout", "300ms")
        result = run(state, *words)
        gave_up = not release.is_set()
        release.set()
    assert gave_up
    assert result.exit_code == 1
    assert "did not answer within 0.3 s" in result.stderr
    assert time.monotonic() > began


def test_nobody_there_is_told(state: Path) -> None:
    with serving(steady) as peer:
        pass
    result = run(state, "--prometheus", peer.url, "--query", QUERY)
    assert result.exit_code == 1
    assert f"{peer.url} cannot be asked" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give either a file or --prometheus"),
        (("--prometheus", "http://127.0.0.1:1"), "needs --query"),
        (("--prometheus", "http://x", "--query", QUERY, "--step", "1h"), "--step 1h"),
        (("--prometheus", "http://x", "--query", QUERY, "--step", "1min"), "counts over [5m]"),
        (("--prometheus", "http://u:p@x", "--query", QUERY), "no passwords on the command line"),
        (
            ("--prometheus", "http://x", "--query", QUERY, "--token-env", "NOT_SET_AT_ALL"),
            "the variable is not set",
        ),
        (("--prometheus", "http://x", "--query", QUERY, "--start", "soon"), "--start soon"),
    ],
)
def test_options_that_do_not_fit_are_told(state: Path, words: tuple[str, ...], said: str) -> None:
    result = run(state, *words)
    assert isinstance(result.exception, BadInputError)
    assert said in str(result.exception)


def test_ranges_are_compared_with_the_step_in_any_spelling() -> None:
    five_us = 300 * US
    assert overlapping("sum(increase(x[5m]))", five_us) == ""
    assert overlapping("sum(increase(x[300s]))", five_us) == ""
    assert overlapping("sum(increase(x[4m60s]))", five_us) == ""
    assert overlapping("sum(increase(x[10m]))", five_us) == "10m"
    assert overlapping("no_range", five_us) == ""
