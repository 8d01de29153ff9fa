"""What every refusal of bad input has in common."""

import pytest

from walras import WalrasError


def assert_refused(make, told):
    """Raises one sentence that has all of these words."""
    with pytest.raises(WalrasError) as raised:
        make()
    for words in told:
        assert words in str(raised.value)
    assert "\n" not in str(raised.value)
