"""The benchmark itself, quickly: everybody that can be measured is, and whoever cannot is named."""

import sys
from pathlib import Path

import msgspec
import pytest

from loadtests.bench_report import OURS, Report
from tests.integration.running import processes_over, python

pytestmark = pytest.mark.integration

ENDS_AT_ONCE = """#!/bin/sh
echo 'what is --policy?' >&2
exit 3
"""
ANSWERS_ONCE = """#!{python}
import http.server, sys

class Tired(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answered = 0

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        Tired.answered += 1
        self.send_response(200 if Tired.answered == 1 else 503)
        self.send_header("content-length", "0")
        self.end_headers()

port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Tired).serve_forever()
"""


def install(peers: Path, name: str, program: str) -> None:
    """An environment of a peer, as `make bench` leaves it."""
    bin_folder = peers / name / "bin"
    bin_folder.mkdir(parents=True)
    for path, text in (
        (bin_folder / "python", "#!/bin/sh\necho 9.9\n"),
        (bin_folder / name, program),
    ):
        path.write_text(text)
        path.chmod(0o755)


async def test_peers_that_cannot_be_measured_are_named_and_spoil_nothing(tmp_path: Path) -> None:
    peers, page = tmp_path / "peers", tmp_path / "reports" / "gateway.md"
    install(peers, "smg", ENDS_AT_ONCE)
    install(peers, "vllm-router", ANSWERS_ONCE.format(python=sys.executable))
    quick = ("-m", "loadtests.bench", "--quick")
    done = await python(*quick, "--peers", str(peers), "--report", str(page))
    assert done.code == 0, done.err
    report = msgspec.json.decode(done.out, type=Report)

    for rows in report.rows.values():
        (ours,) = rows
        assert ours.subject == OURS
        assert ours.rounds == 1
        assert ours.cpu_us > 0
        assert ours.per_s > 0
        assert ours.p99_ms > 0
    assert report.facts.rss_mb[OURS] > 10
    assert [verdict.met for verdict in report.verdicts] == [None] * 4

    why = report.not_measured
    assert set(why) == {"vllm-router", "smg", "litellm"}
    assert why["litellm"].startswith("not installed: there is no ")
    assert why["smg"] == "did not start: ended with 3. what is --policy?"
    assert why["vllm-router"].startswith("of 1000 chat requests")
    assert "A quick run" in page.read_text()
    assert not processes_over(tmp_path), "nobody is left running"
