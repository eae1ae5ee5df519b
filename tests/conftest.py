"""What all tests share: how hypothesis searches."""

from __future__ import annotations

import os

from hypothesis import settings

# A shared machine is slow now and then, which is no failure. In CI the same examples are tried
# on every run, so that a red build is red for its change.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
