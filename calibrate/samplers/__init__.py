"""Samplers: frozen options that know how to draw from a problem's posterior."""

from walras.calibrate.samplers import pathfinder
from walras.calibrate.samplers.draws import Draws, Progress, Sampler
from walras.calibrate.samplers.laplace import Laplace
from walras.calibrate.samplers.modes import MAP
from walras.calibrate.samplers.nuts import NUTS, Chains, chains
from walras.calibrate.samplers.smc import SMC
from walras.calibrate.samplers.target import Target
from walras.calibrate.samplers.variational import SVI

__all__ = ["MAP", "NUTS", "SMC", "SVI", "Chains", "Draws", "Laplace", "Progress", "Sampler", "Target", "chains", "pathfinder"]
