"""The status page in a real browser, over a real gateway."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from tests.integration.running import Gateway, catalog_text, emulated, running, until, warmtide

pytestmark = pytest.mark.integration

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# A browser of its own accord asks its maker for updates and more: none of that here.
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture
def page() -> Iterator[Page]:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        assert not os.environ.get("CI"), "CI installs a browser: see .ci/run"
        pytest.skip("no Chromium here: the status page is not tried in a browser")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=list(QUIET))
        page = browser.new_page()
        troubles: list[str] = []
        page.on("pageerror", lambda error: troubles.append(str(error)))
        yield page
        browser.close()
    assert not troubles, troubles


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    models = [emulated("busy", min_replicas=1), emulated("idle")]
    with running(tmp_path, catalog_text(models), time_scale=20) as made:
        yield made


def ask(gateway: Gateway, model: str) -> int:
    body = {"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}
    return httpx.post(f"{gateway.base_url}/chat/completions", json=body, timeout=60).status_code


def test_who_has_the_token_sees_models_nodes_and_what_happens(gateway: Gateway, page: Page) -> None:
    until(lambda: gateway.serving("busy"), "the model serves")
    page.goto(gateway.admin_url)
    page.get_by_label("Admin token").fill("guessed")
    page.get_by_role("button", name="Show").click()
    page.get_by_text("not this gateway's").wait_for()
    assert page.locator("#models tbody tr").count() == 0

    page.get_by_label("Admin token").fill((gateway.state_dir / "admin.token").read_text())
    page.get_by_role("button", name="Show").click()
    row = page.locator("#models tbody tr", has_text="busy")
    row.get_by_text("serving").wait_for()
    assert not page.get_by_label("Admin token").is_visible()
    assert page.locator("#nodes meter").count() == 2
    page.locator("#nodes", has_text="busy-1 serving").wait_for()

    for _ in range(3):
        assert ask(gateway, "busy") == 200
    row.locator("td:nth-child(10)", has_text="3").wait_for()


def test_the_address_with_the_token_opens_it_and_keeps_it_out_of_sight(
    gateway: Gateway, page: Page
) -> None:
    address = warmtide("status", "--page", "--json", "--state-dir", gateway.state_dir)
    page.goto(address.document["page"])
    page.locator("#models tbody tr", has_text="busy").wait_for()
    assert "#" not in page.url
    token = (gateway.state_dir / "admin.token").read_text()
    assert token not in page.content()


def test_a_gateway_that_went_away_is_told_and_the_old_page_says_so(
    gateway: Gateway, page: Page
) -> None:
    address = warmtide("status", "--page", "--json", "--state-dir", gateway.state_dir)
    page.goto(address.document["page"])
    page.locator("#models tbody tr", has_text="busy").wait_for()
    page.route("**/status", lambda route: route.abort())
    page.get_by_role("alert").get_by_text("does not answer").wait_for()
    page.unroute("**/status")
    page.get_by_role("alert").wait_for(state="hidden")


@pytest.mark.parametrize("path", ["/", "/console.js", "/console.css"])
def test_the_page_itself_holds_nothing_and_everything_else_wants_the_token(
    gateway: Gateway, path: str
) -> None:
    open_to_all = httpx.get(gateway.admin_url + path)
    assert open_to_all.status_code == 200
    assert "default-src 'none'" in open_to_all.headers["content-security-policy"]
    assert "busy" not in open_to_all.text
    for guarded in ("/status", "/metrics", "/history", "/catalog", "/console", "//", "/./status"):
        assert httpx.get(gateway.admin_url + guarded).status_code == 401, guarded


def test_the_history_is_given_in_the_widths_that_there_are(gateway: Gateway) -> None:
    headers = {"authorization": f"Bearer {(gateway.state_dir / 'admin.token').read_text()}"}
    url = f"{gateway.admin_url}/history"
    until(
        lambda: httpx.get(url, headers=headers, params={"width_s": 10}).json().get("rows"),
        "a window is over",
    )
    rows = httpx.get(url, headers=headers, params={"width_s": 10, "model": "busy"}).json()["rows"]
    assert {row["model"] for row in rows} == {"busy"}
    for wrong in ({"width_s": "7"}, {"last_s": "-1"}, {"last_s": "9" * 30}):
        answer = httpx.get(url, headers=headers, params=wrong)
        assert answer.status_code == 400, answer.text
