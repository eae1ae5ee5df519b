"""What tests of models share: one thread, and tables of made-up patients."""

from __future__ import annotations

import os

# Before TensorFlow is loaded by whichever test comes first.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
