"""A browser context that remembers whatever goes wrong in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response

AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
#: Sums up how far things moved without anybody having touched anything.
_WATCH_SHIFTS = """
window.shifts = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts += entry.value;
}).observe({type: 'layout-shift', buffered: true});
"""


@dataclass
class Visitor:
    """One person with one page."""

    context: BrowserContext
    page: Page
    problems: list[str] = field(default_factory=list)
    scripts: dict[str, int] = field(default_factory=dict)
    #: Parts of problems that a test makes on purpose.
    expected: tuple[str, ...] = ()

    @classmethod
    def arrive(cls, browser: Browser, url: str, cookie: str | None = None, **options: Any) -> Visitor:
        """Open a page; with a cookie as somebody who has signed in."""
        context = browser.new_context(base_url=url, **({"viewport": {"width": 1360, "height": 860}} | options))
        context.set_default_timeout(30_000)
        context.add_init_script(_WATCH_SHIFTS)
        if cookie is not None:
            context.add_cookies([{"name": "imagefleet_session", "value": cookie, "url": url, "httpOnly": True}])
        visitor = cls(context, context.new_page())
        visitor._listen()
        return visitor

    def _listen(self) -> None:
        def hear(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                self.problems.append(f"console: {message.text} {message.location.get('url', '')}")

        def answered(response: Response) -> None:
            if response.status >= 400:
                self.problems.append(f"{response.status} {response.request.method} {response.url}")
            if response.request.resource_type == "script" and response.url.endswith(".js"):
                self.scripts[response.url] = int(response.headers.get("content-length", "0"))

        def failed(request: Request) -> None:
            # What a page gives up on purpose when it is left or needs something else is no failure.
            if request.failure != "net::ERR_ABORTED":
                self.problems.append(f"{request.failure} {request.method} {request.url}")

        self.page.on("console", hear)
        self.page.on("pageerror", lambda error: self.problems.append(f"thrown: {error}"))
        self.page.on("response", answered)
        self.page.on("requestfailed", failed)

    def leave(self) -> None:
        """Close the browser context; fail when anything went wrong that no test made on purpose."""
        self.context.close()
        surprises = [problem for problem in self.problems if not any(part in problem for part in self.expected)]
        assert not surprises, surprises

    @property
    def shifts(self) -> float:
        """Return how far things have moved by themselves since the page was opened."""
        return float(self.page.evaluate("window.shifts"))

    def faults(self) -> list[str]:
        """Return the accessibility faults of the page as it stands that axe calls serious or worse."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{each['id']}: {node['target']} {node.get('failureSummary', '')}"
            for each in found["violations"]
            if each["impact"] in {"serious", "critical"}
            for node in each["nodes"]
        ]
