"""The report: what it says, whatever the ledger has, and how it looks in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from distilabel_openai_batch.cli import app
from distilabel_openai_batch.ledger.entries import JobTimeline
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import JobState, ScopeName
from distilabel_openai_batch.report.history import Ending, Phase, Stretch, answers_over_time, crowds, histories
from tests.support import ledgers
from tests.support.entries import COLLECTED_JOB
from tests.support.ledgers import START, LedgerWriter

SCOPE = ScopeName("preferences", "generate", "https://api.openai.com/v1/")
JOB = replace(
    COLLECTED_JOB,
    scope=SCOPE,
    requests=10,
    answered=8,
    failed=2,
    tokens_in=100,
    tokens_out=100,
    created_at=100.0,
    ended_at=200.0,
    answered_by="gpt-4o-mini-2024-07-18",
)
NOW = 1_000.0
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}"


def history(job=JOB, timeline=None):
    [found] = histories([job], [timeline or JobTimeline()], NOW)
    return found


@pytest.mark.parametrize(
    ("job", "timeline", "stretches"),
    [
        pytest.param(
            JOB,
            JobTimeline(110.0, 180.0, None, 195.0),
            [(Phase.QUEUED, 100, 110), (Phase.IN_PROGRESS, 110, 180), (Phase.FINALIZING, 180, 195)],
            id="all is known",
        ),
        pytest.param(
            replace(JOB, status="cancelled"),
            JobTimeline(110.0, None, 150.0, 160.0),
            [(Phase.QUEUED, 100, 110), (Phase.IN_PROGRESS, 110, 150), (Phase.CANCELLING, 150, 160)],
            id="cancelled",
        ),
        pytest.param(JOB, None, [(Phase.UNDER_WAY, 100, 200)], id="the server says nothing"),
        pytest.param(replace(JOB, status="failed"), None, [(Phase.QUEUED, 100, 200)], id="refused"),
        pytest.param(
            replace(JOB, state=JobState.CREATED, status="in_progress", ended_at=None),
            JobTimeline(110.0),
            [(Phase.QUEUED, 100, 110), (Phase.IN_PROGRESS, 110, NOW)],
            id="under way",
        ),
        pytest.param(
            replace(JOB, state=JobState.PLANNED, status="planned", batch_id=None, answered=0, ended_at=None),
            None,
            [(Phase.QUEUED, 100, NOW)],
            id="not created yet",
        ),
        pytest.param(replace(JOB, batch_id=None), None, [(Phase.ASKED_AT_ONCE, 100, 200)], id="no batch"),
        pytest.param(
            JOB,
            JobTimeline(50.0, 60.0, None, 90.0),
            [(Phase.FINALIZING, 100, 100)],
            id="the clock of the server is behind",
        ),
    ],
)
def test_a_job_goes_through_its_phases(job, timeline, stretches):
    """Without a gap, from when it was planned to its end, or to now."""
    assert list(history(job, timeline).stretches) == [Stretch(*each) for each in stretches]


@pytest.mark.parametrize(
    ("state", "status", "ending"),
    [
        (JobState.COLLECTED, "completed", Ending.COMPLETED),
        (JobState.COLLECTED, "expired", Ending.EXPIRED),
        (JobState.COLLECTED, "canceled", Ending.CANCELLED),
        (JobState.DROPPED, "failed", Ending.FAILED),
        (JobState.DROPPED, "dropped", Ending.DROPPED),
        (JobState.CREATED, "in_progress", Ending.OPEN),
        (JobState.CREATED, "a status of tomorrow", Ending.OPEN),
        (JobState.COLLECTED, "a status of tomorrow", Ending.COMPLETED),
        (JobState.CREATED, "not found", Ending.FAILED),
    ],
)
def test_each_ending_is_told_apart(state, status, ending):
    """Those of OpenAI's server, and what others say."""
    assert history(replace(JOB, state=state, status=status)).ending is ending


def test_answers_come_when_they_were_seen():
    """Each look tells what was gained since the one before; the rest came at the end."""
    timeline = JobTimeline(110.0, None, None, 200.0, polls=((120.0, 3, 0), (140.0, 3, 1), (150.0, 6, 1)))
    found = history(JOB, timeline)
    assert found.steps == ((120.0, 3, 0), (140.0, 0, 1), (150.0, 3, 0), (200.0, 2, 1))
    over_time = [(each.at, each.answered, each.failed) for each in answers_over_time([found], 5)]
    assert over_time == [(100.0, 0, 0), (125.0, 3, 0), (150.0, 6, 1), (175.0, 6, 1), (200.0, 8, 2)]


def test_a_crowd_has_each_job_once():
    """Whatever the spans are, the time that jobs spend in them is theirs, and each ends once."""
    found = histories(
        [replace(JOB, created_at=100.0 + 7 * number, ended_at=150.0 + 9 * number) for number in range(50)],
        [JobTimeline(110.0 + 7 * number, None, None, 150.0 + 9 * number) for number in range(50)],
        NOW,
    )
    some = crowds(found, 13)
    seconds = sum(sum(crowd.phases.values()) * (crowd.end - crowd.start) for crowd in some)
    assert seconds == pytest.approx(sum(each.end - each.start for each in found))
    assert sum(sum(crowd.endings.values()) for crowd in some) == 50


def test_nothing_is_nothing():
    """No jobs have no history."""
    assert answers_over_time([], 5) == []
    assert crowds([], 5) == []


@pytest.fixture
def drawing():
    """What pages are drawn with: an extra."""
    pytest.importorskip("vl_convert", reason="the extra `report` is not installed")


def reported(directory, tmp_path, *arguments):
    output = tmp_path / "report.html"
    command = ["report", *arguments, "-o", str(output), "--ledger-dir", str(directory)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return output


def odd(directory):
    """A ledger whose names and errors are what nobody hopes for."""
    with closing(LedgerWriter(directory)) as books:
        scope = books.scope(HOSTILE, HOSTILE, "https://me:password-of-mine@example.com/v1/")
        failures = [(400, HOSTILE, f"{HOSTILE} The key sk-proj-abcdef0123456789 is wrong."), (500, None, "x" * 900)]
        facts = {"model": HOSTILE, "error": HOSTILE, "failures": failures, "known": False}
        books.job(scope, 0, "expired", requests=30, answered=10, **facts)


def test_what_the_ledger_says_is_text(drawing, tmp_path):
    """However it is written: names, models, codes, errors. Keys are not shown, answers and requests neither."""
    odd(tmp_path / "ledger")
    html = reported(tmp_path / "ledger", tmp_path).read_text()
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;/script&gt;" in html
    assert "{{ 7 * 7 }}" in html
    assert "abcdef0123456789" not in html
    assert "x" * 300 not in html
    assert "SECRET ANSWER" not in html
    assert "password-of-mine" not in html


def test_names_may_have_control_characters(drawing, tmp_path):
    """They are not drawn. What draws would end the process, so it is one of its own."""
    with closing(LedgerWriter(tmp_path)) as books:
        books.job(books.scope("a\x01b", "\x1b[31mred\x00\x9b\ufffe"), 0.0)
    output = tmp_path / "report.html"
    command = [sys.executable, "-c", "from distilabel_openai_batch.cli import app; app()"]
    ran = subprocess.run(
        [*command, "report", "-o", output, "--ledger-dir", tmp_path], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "ab/[31mred 1" in output.read_text()


def test_a_page_loads_nothing(drawing, tmp_path):
    """It has no address in it that a browser would ask, and forbids the browser to ask any."""
    ledgers.write_example_ledger(tmp_path / "ledger")
    html = reported(tmp_path / "ledger", tmp_path).read_text()
    assert "default-src 'none'" in html
    loads = re.findall(r"""(?:src|href|xlink:href|action)\s*=\s*["']([^"']*)|url\(([^)]*)|@import""", html)
    assert {address for address, _ in loads} <= {"data:,"}
    assert {url for _, url in loads if url} == set()


def test_one_scope_can_be_reported(drawing, tmp_path):
    """Its jobs and failures, and no other's."""
    ledgers.write_example_ledger(tmp_path / "ledger")
    html = reported(tmp_path / "ledger", tmp_path, "preferences/judge").read_text()
    assert "<h1>preferences/judge</h1>" in html
    assert "preferences/generate" not in html


def test_many_jobs_make_no_large_page(drawing, tmp_path):
    """They are shown as a crowd, and the latest are listed."""
    ledgers.write_large_ledger(tmp_path / "ledger")
    path = reported(tmp_path / "ledger", tmp_path)
    assert path.stat().st_size < 1_000_000
    html = path.read_text()
    assert html.count("batch_0") == 100
    assert "1,900 older ones are left out" in html


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    """And nothing is written."""
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    books = LedgerWriter(tmp_path)
    books.scope("preferences", "generate")
    books.close()
    arguments = ["report", "-o", str(tmp_path / "r.html"), "--ledger-dir", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "pip install 'distilabel-openai-batch[report]'" in result.output
    # A scope that does not exist is reported before a missing package, which would not help.
    result = CliRunner().invoke(app, [*arguments, "nosuch"])
    assert "has no scope nosuch. Its scopes: preferences/generate" in result.output
    assert not (tmp_path / "r.html").exists()


def test_a_file_that_cannot_be_written_is_an_error(drawing, tmp_path):
    """By its name."""
    LedgerWriter(tmp_path / "ledger").close()
    output = tmp_path / "nowhere" / "report.html"
    result = CliRunner().invoke(app, ["report", "-o", str(output), "--ledger-dir", str(tmp_path / "ledger")])
    assert result.exit_code == 1
    assert str(output) in result.output


def test_a_ledger_that_is_written_to_can_be_reported(drawing, tmp_path):
    """While a pipeline works on it, it is neither waited for nor disturbed."""
    ledgers.write_example_ledger(tmp_path / "ledger")
    with closing(Ledger(tmp_path / "ledger", SCOPE)) as ledger, ledger.connection.transaction() as database:
        database.execute("UPDATE jobs SET requests = requests + 1")
        assert "5 completed" in re.sub(r"\s+", " ", reported(tmp_path / "ledger", tmp_path).read_text())


def test_jobs_that_were_added_meanwhile_are_no_matter(tmp_path):
    """What is there of a job that was read in part is taken."""
    ledgers.write_example_ledger(tmp_path / "ledger")
    reader = LedgerReader(tmp_path / "ledger")
    jobs, timelines = reader.jobs(), reader.timelines()
    assert len(histories(jobs[:-2], timelines, NOW)) == len(jobs) - 2
    assert len(histories(jobs, timelines[:-2], NOW)) == len(jobs)


# --- in a browser -----------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZES = {"wide": 1_280, "between": 720, "narrow": 375, "small": 320}

# What is wrong with a page, as far as a program can see it.
FAULTS = r"""
() => {
  const faults = [];
  const root = document.documentElement;
  if (root.scrollWidth > window.innerWidth) faults.push(`it is ${root.scrollWidth} wide`);

  // Each chart is there once, and has a size.
  for (const section of document.querySelectorAll("#timeline, #answers")) {
    const shown = [...section.querySelectorAll(".chart")].filter(chart => chart.getClientRects().length);
    if (shown.length !== 1) faults.push(`${section.id} has ${shown.length} charts`);
    for (const chart of shown) {
      const {width, height} = chart.querySelector("svg").getBoundingClientRect();
      if (width < 200 || height < 50) faults.push(`${section.id} is ${width} × ${height}`);
      const marks = chart.querySelectorAll("path[aria-label], line[aria-label]");
      if (!marks.length) faults.push(`${section.id} has no marks`);
      const silent = [...marks].filter(mark => !mark.querySelector("title"));
      if (silent.length) faults.push(`${section.id} has marks that say nothing`);
    }
  }

  const parse = colour => {
    const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number);
    return {rgb: [r, g, b], a};
  };
  const luminance = rgb => {
    const [r, g, b] = rgb.map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let each = element; each; each = each.parentElement) {
      const {rgb, a} = parse(getComputedStyle(each).backgroundColor);
      if (a) return rgb;
    }
    return [255, 255, 255];
  };

  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.textContent.trim() || element.closest("title")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const rects = [...range.getClientRects()].filter(rect => rect.width && rect.height);
    if (!rects.length) continue;
    const style = getComputedStyle(element);
    const ink = parse(element.closest("svg") ? style.fill : style.color).rgb;
    const [dark, light] = [luminance(ink), luminance(behind(element))].sort((a, b) => a - b);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < 4.5) faults.push(`'${node.textContent.trim()}' has a contrast of ${contrast.toFixed(2)}`);
    const scrolls = element.closest(".scroll");
    for (const rect of rects) {
      if (!scrolls && (rect.left < 0 || rect.right > window.innerWidth + 0.5))
        faults.push(`'${node.textContent.trim()}' leaves the page`);
      texts.push({rect, text: node.textContent.trim(), element});
    }
  }
  for (const [place, one] of texts.entries()) {
    for (const other of texts.slice(place + 1)) {
      if (one.element === other.element) continue;
      const width = Math.min(one.rect.right, other.rect.right) - Math.max(one.rect.left, other.rect.left);
      const height = Math.min(one.rect.bottom, other.rect.bottom) - Math.max(one.rect.top, other.rect.top);
      // The lines of a paragraph stand closer than their boxes are high.
      if (width > 1 && height > 4) faults.push(`'${one.text}' overlaps '${other.text}'`);
    }
  }
  return faults;
}
"""


@pytest.fixture(scope="module")
def browser():
    """A browser that is there already; none is fetched."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def one(directory):
    """A ledger with one job, of which no moment is known."""
    with closing(LedgerWriter(directory)) as books:
        books.job(books.scope("preferences", "generate"), 0, known=False, took=0.0, queued=0.0)


def empty(directory):
    LedgerWriter(directory).close()


def synchronous(directory):
    """Nothing but requests that were asked at once."""
    with closing(LedgerWriter(directory)) as books:
        scope = books.scope("a script with a rather long name, as scripts have where nobody thinks of reports.py", "")
        books.job(scope, 0, known=False, requests=12, queued=1.0, took=9.0)
        books._database.execute("UPDATE jobs SET batch_id = NULL, status = NULL")


@pytest.mark.parametrize(
    "ledger", [empty, one, synchronous, odd, ledgers.write_example_ledger, ledgers.write_large_ledger]
)
def test_a_page_can_be_looked_at(drawing, browser, tmp_path, monkeypatch, ledger):
    """In light and dark, wide and narrow: all is legible, nothing is cut off, nothing is asked of anybody."""
    ledger(tmp_path / "ledger")
    monkeypatch.setattr(time, "time", lambda: START + 14_600)
    path = reported(tmp_path / "ledger", tmp_path)
    backgrounds = set()
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme, viewport={"width": 1_280, "height": 900})
        said = []
        opened = context.new_page()
        opened.on("request", lambda request, said=said: said.append(request.url))
        opened.on("console", lambda message, said=said: said.append(message.text))
        opened.on("pageerror", lambda error, said=said: said.append(str(error)))
        opened.goto(path.as_uri())
        if opened.locator("summary").count():
            opened.locator("summary").click()
        backgrounds.add(opened.evaluate("getComputedStyle(document.body).backgroundColor"))
        for size, width in SIZES.items():
            opened.set_viewport_size({"width": width, "height": 900})
            assert opened.evaluate(FAULTS) == [], f"{scheme}, {size}"
        assert [each for each in said if not each.startswith("data:")] == [path.as_uri()]
        context.close()
    assert len(backgrounds) == 2


def test_a_page_says_what_the_ledger_says(drawing, tmp_path, monkeypatch):
    """Its numbers are those of the other commands."""
    ledgers.write_example_ledger(tmp_path / "ledger")
    monkeypatch.setattr(time, "time", lambda: START + 14_600)
    html = reported(tmp_path / "ledger", tmp_path).read_text()
    scopes = LedgerReader(tmp_path / "ledger").scopes()
    for number in (sum(scope.answered for scope in scopes), sum(scope.failed for scope in scopes)):
        assert f"<strong>{number:,}</strong>" in html
    assert "24 Nov 2026, 06:00 to 10:03 UTC, 4 h 03 min" in html
    for words in ("5 completed", "1 expired", "1 cancelled", "1 failed"):
        assert words in re.sub(r"\s+", " ", html)
