"""Imported last by a server of processes: what it holds stays, so that no child of it looks through all of that."""

from __future__ import annotations

import gc

gc.collect()
gc.freeze()
