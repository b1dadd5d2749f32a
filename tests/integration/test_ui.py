"""The command `ui` in a browser, with a ledger and input files of the sandbox."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.engine import calls
from distilabel_openai_batch.sandbox import RequestFailure
from tests.support.browser import PAGE_FAULTS, started_browser

pytest.importorskip("vl_convert", reason="the extra `ui` is not installed")

# Widths of the window, and of the charts in it.
WIDTHS = {1_280: 960, 420: 311}
# Script that returns whether the press of a button ends within ten seconds.
PRESS_ENDS = (
    "Promise.race([press.ended, new Promise(end => setTimeout(end, 10_000, 'held'))]).then(end => end !== 'held')"
)
START_UI = "from distilabel_openai_batch.cli import app; app()"


@pytest.fixture(scope="module")
def browser():
    with started_browser() as browser:
        yield browser


@pytest.fixture
def address(sandbox):
    """Return the address of the page, which another process serves."""
    generate(range(4))
    process = subprocess.Popen([sys.executable, "-c", START_UI, "ui"], stdout=subprocess.PIPE, text=True)
    yield process.stdout.readline().strip()
    process.terminate()
    process.communicate()


def generate(numbers) -> None:
    """Generate an answer to a chat for each number, as a new process would."""
    calls.scope_memories.clear()
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05)
    llm.load()
    llm.generate([[{"role": "user", "content": f"Say number {number}."}] for number in numbers])


def open_page(browser, address, scheme, faults, requested):
    """Open the page in a light or dark browser that notes requests, errors and messages."""
    context = browser.new_context(color_scheme=scheme, permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address)
    page.locator(".row").nth(3).wait_for()
    return page


def find_faults(page) -> list[str]:
    """Return the faults of the page with an open row, at each width."""
    page.locator(".row summary").first.click()
    page.locator(".detail dl").wait_for()
    faults = [text for text in page.locator(".actions").all_inner_texts() if "false" in text]
    for width, chart_width in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": 900})
        page.locator(f"#answers .w{chart_width}").wait_for()
        faults += [f"{width}: {fault}" for fault in page.evaluate(PAGE_FAULTS)]
    return faults


def test_the_page_updates_itself_finds_rows_and_copies_a_request(sandbox, address, browser):
    """No text is cut off or overlaps in light and dark, and the browser sends requests to the page's address alone."""
    sandbox.configure(failures=[RequestFailure(contains="number 7.", status=400, message="No sevens, `please`.")])
    requested: list[str] = []
    faults: list[str] = []
    page = open_page(browser, address, "light", faults, requested)
    generate(range(8))
    # The counts and the failure appear without a reload.
    page.get_by_text("of 8 requests").wait_for()
    page.get_by_text("No sevens").first.wait_for()
    page.select_option("#state", "failed")
    page.locator(".row").nth(1).wait_for(state="detached")
    page.locator(".row summary").click()
    page.get_by_role("button", name="Copy request as JSON").click()
    page.get_by_text("The request is in the clipboard.").wait_for()
    request = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert request["body"]["messages"][-1]["content"] == "Say number 7."
    # The prompt is known since the request was copied, and the search finds it.
    page.fill("#text", "say number 7")
    page.get_by_role("button", name="Show").click()
    page.locator(".row .prompt", has_text="Say number 7.").wait_for()
    faults += find_faults(page)
    page = open_page(browser, address, "dark", faults, requested)
    faults += find_faults(page)
    assert faults == []
    assert {url[: len(address)] for url in requested if not url.startswith("data:")} == {address}


def wait_for_poll(page) -> str:
    """Return the reply to the page's next request of the sections; empty if nothing has changed."""
    with page.expect_response(lambda response: "/sections?" in response.url) as info:
        pass
    return info.value.text() if info.value.status == 200 else ""


def is_focused(locator) -> bool:
    return locator.evaluate("node => node === document.activeElement")


def test_an_update_during_a_press_waits_for_the_click_and_keeps_focus_and_selection(sandbox, address, browser):
    """The page replaces no element between press and release, since the browser would send no click."""
    page = open_page(browser, address, "light", [], [])
    pressed = page.locator(".row summary").nth(1)
    pressed.hover()
    page.mouse.down()
    generate(range(8))
    while "of 8 requests" not in wait_for_poll(page):
        pass
    # At its next poll, the page has had the time to show the last reply.
    wait_for_poll(page)
    assert page.get_by_text("of 8 requests").count() == 0
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#failures h2'))")
    page.mouse.up()
    page.locator(".detail dl").wait_for()
    page.get_by_text("of 8 requests").wait_for()
    page.locator(".row").nth(7).wait_for()
    # The row that is read stays open, and the keyboard stays at the row.
    assert page.locator(".row").nth(1).get_attribute("open") is not None
    assert is_focused(pressed)
    assert page.evaluate("getSelection().toString()") == "Failures by reason"
    # An update without the row takes away the other rows alone.
    assert page.evaluate("fillList([]), document.querySelectorAll('.row').length") == 1
    # The browser may send no release, as after a press that becomes a movement of the page.
    for event in ("pointercancel", "pointermove", "blur"):
        # The next update may have brought the other rows back.
        page.locator(".row summary").first.hover()
        page.mouse.down()
        assert page.evaluate("press.ended !== null")
        page.evaluate(f"dispatchEvent(new PointerEvent('{event}'))")
        assert page.evaluate(PRESS_ENDS)
        page.mouse.up()


def test_an_update_does_not_replace_rows_that_the_user_requested(sandbox, address, browser):
    page = open_page(browser, address, "light", [], [])
    held = []
    page.route("**/rows?*number=3*", lambda route: held.append(route))
    page.fill("#number", "3")
    page.get_by_role("button", name="Show").click()
    generate(range(8))
    page.get_by_text("of 8 requests").wait_for()
    held[0].continue_()
    page.get_by_text("row 1", exact=True).wait_for(state="detached")
    page.get_by_text("row 8", exact=True).wait_for()
    assert page.locator(".row .prompt").all_inner_texts() == [f"row {number}" for number in range(3, 9)]
