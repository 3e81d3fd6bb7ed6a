"""Is what is no news kept away, and everything else said?"""

from __future__ import annotations

import logging
import warnings

import pytest

from diffinst.training.quiet import quiet


def test_only_what_is_no_news_is_kept_away(caplog: pytest.LogCaptureFixture) -> None:
    lightning = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    before = logging.getLogger("pytorch_lightning").level
    with warnings.catch_warnings(record=True) as said, caplog.at_level(logging.INFO):
        warnings.simplefilter("always")
        with quiet():
            warnings.warn("The 'val_dataloader' does not have many workers", stacklevel=1)
            warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated", stacklevel=1)
            warnings.warn("the data are odd", stacklevel=1)
            lightning.info("GPU available: False")
            lightning.warning("a worker is gone")
    assert [str(w.message) for w in said] == ["the data are odd"]
    assert "GPU" not in caplog.text and "a worker is gone" in caplog.text
    assert logging.getLogger("pytorch_lightning").level == before
