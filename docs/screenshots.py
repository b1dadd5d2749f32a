"""Photograph the report and the live page over a run at the sandbox, as PNG files in `docs/assets/`.

    python docs/screenshots.py

The run is real: `examples/pipeline.py`, with some failed requests. Chromium has to be installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from sandbox_environment import sandbox_environment

from distilabel_openai_batch.sandbox import RequestFailure, Settings

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / "docs" / "assets"

# Each job takes ten seconds, so that the curve of answers rises.
SETTINGS = Settings(
    validating_seconds=1.0,
    in_progress_seconds=8.0,
    finalizing_seconds=1.0,
    failures=[RequestFailure(contains="", share=0.05, code="content_filter", message="The prompt was filtered.")],
    prompt_cache=True,
)

# Width and height of the window, in pixels.
WINDOW = {"width": 1_000, "height": 810}
# Number of colours of a picture: a page has few, and the file has a quarter of the size.
COLOURS = 128


def photograph(page: Page, name: str) -> None:
    """Write the window's content as `docs/assets/<name>.png`."""
    path = ASSETS / f"{name}.png"
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)


def main() -> None:
    """Run the example, and photograph its report and its live page."""
    command = Path(sys.executable).with_name("distilabel-openai-batch")
    with sandbox_environment(SETTINGS, DISTILABEL_OPENAI_BATCH_PRICES="openai") as (home, environment):
        pipeline = ROOT / "examples" / "pipeline.py"
        subprocess.run([sys.executable, pipeline], env=environment, cwd=ROOT, check=True)
        report = home / "report.html"
        subprocess.run([sys.executable, command, "report", "-o", report], env=environment, check=True)
        photograph_pages(report, [sys.executable, command, "ui", "batch-demo/generate"], environment)


def photograph_pages(report: Path, ui_command: list[str | Path], environment: dict[str, str]) -> None:
    """Photograph the report, and the live page with an open row.

    Args:
        report: The report's file.
        ui_command: Command that serves the live page.
        environment: Environment of the command.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    ui = subprocess.Popen(ui_command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--headless", "--no-sandbox"])
            page = browser.new_page(viewport=WINDOW, color_scheme="light")
            page.goto(report.as_uri())
            photograph(page, "report")
            assert ui.stdout is not None
            page.goto(ui.stdout.readline().strip())
            page.locator(".row summary").first.click()
            page.locator(".detail dl").wait_for()
            page.get_by_role("button", name="Load prompts").click()
            page.locator(".row .prompt", has_text="Explain").first.wait_for(timeout=10_000)
            page.locator("#rows").evaluate("rows => rows.scrollIntoView()")
            photograph(page, "ui")
            browser.close()
    finally:
        ui.terminate()
        ui.communicate()


if __name__ == "__main__":
    main()
