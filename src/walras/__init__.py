"""walras: Bayesian calibration of market-equilibrium models.

Three rooms: ``walras.model`` (equilibria as differentiable functions), ``walras.data`` (validated tables) and
``walras.calibrate`` (inference on the first with the second). Importing this package does nothing else.
"""

__version__ = "0.1.0"


class WalrasError(Exception):
    """Something the user can mend; the message is one sentence with the field, the value and the remedy."""
