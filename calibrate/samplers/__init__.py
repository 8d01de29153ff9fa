"""Samplers: frozen options that know how to draw from a problem's posterior."""

from walras.calibrate.samplers.draws import Draws, Progress, Sampler
from walras.calibrate.samplers.nuts import NUTS, Chains, chains
from walras.calibrate.samplers.target import Target

__all__ = ["NUTS", "Chains", "Draws", "Progress", "Sampler", "Target", "chains"]
