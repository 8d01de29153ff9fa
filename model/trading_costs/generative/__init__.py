"""The generative solver: equilibria with trading costs for any number of agents and any power 1 < q ≤ 2, by neural networks.

After Kratsios–Shi–Sun–Zhang (arXiv 2504.04300), with their three parts:

* the **generator** proposes what trading faster costs each agent at the margin, y̲ⁿ(t, W, z), and so the rates at which agents
  trade, φ̇ⁿ = sgn(yⁿ)(|yⁿ|/λ)^{1/(q−1)}, yⁿ = y̲ⁿ − c. The level c is such that rates have no sum: markets clear by construction;
* the **discriminator** proposes the price S(t, W, z), which ends at βT + αW_T by construction, with it S₀, and the volatility
  σ = E_t[S_{t+1} ΔW] / D;
* the **reinforcement link** judges both by agents' first-order conditions. Were the price theirs, agents would value the next
  position at vⁿ = E_t[yⁿ_{t+1}] − γⁿσ(σφⁿ + ξⁿW)D beyond E_t[S_{t+1}], and trade at the rates of vⁿ − c(v): markets clear at
  the price E_t[S_{t+1}] + c(v), so that the drift is μ = −c(v)/D. Generator and discriminator are trained until theirs are the
  same, along paths that the generator itself makes.

z is how far positions are from those without costs. W moves by ±√D in each step of length D, as on the lattice, so that
expectations over a step are exact: an equilibrium has no residual at all.
"""
