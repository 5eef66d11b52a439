"""Models as a configuration names them."""

from __future__ import annotations

import pytest

from fewseg.build import configured_model
from fewseg.config import load_config
from fewseg.errors import UsageError


@pytest.mark.slow
def test_a_papers_recipe_does_not_start_from_a_random_back_end() -> None:
    for name in ("base-paper", "pfenet-paper", "hdmnet-paper"):
        with pytest.raises(UsageError, match=r"give model\.weights=FILE"):
            configured_model(load_config(name, "pascal5i"))
    with pytest.raises(UsageError, match=r"give model\.weights=FILE"):
        configured_model(load_config("hdmnet-paper", "pascal5i", "base.run=DIR", "model.base_learner=false"))
    configured_model(load_config("hdmnet-paper", "pascal5i", "base.run=DIR"))  # which brings the back-end
