"""The browser for these tests: Chromium, driven through playwright-core by `drive.mjs`."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: needs Chromium, Node.js, and `npm install` in tests/browser")
