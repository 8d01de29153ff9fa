"""Equilibria of agents who hedge against each other at a cost (Kratsios–Shi–Sun–Zhang, arXiv 2504.04300; Gonon–Muhle-Karbe–
Shi, arXiv 1905.05027).

N agents hold an asset in fixed supply and bear a risk of their own, dYⁿ = ξⁿ W dW. They choose trading rates φ̇ⁿ to maximise

    E ∫ [μ φⁿ − (γⁿ/2) (σ φⁿ + ξⁿ W)² − (λ/q) |φ̇ⁿ|^q] dt,   φⁿ₀ = γ̄ s / γⁿ,

facing a price dS = μ dt + σ dW that ends at S_T = βT + αW_T; μ and σ are such that markets clear, Σ φ̇ⁿ = 0.

======  =====================  ================================================  ===========================
symbol  code                   meaning                                           unit
======  =====================  ================================================  ===========================
γⁿ      ``risk_aversion``      risk aversion of agent n                          1 / money
γ̄       ``aggregate``          that of all agents together, (Σ 1/γⁿ)⁻¹           1 / money
ξⁿ      ``endowment``          exposure of agent n per unit of W                 money / time
λ, q    ``trading_cost``,      cost (λ/q) |φ̇|^q of trading faster                money · time^{q−1} / unit^q
        ``power``
s       ``supply``             units outstanding                                 unit
β       ``payoff_drift``       drift of the final value                          money / (unit · time)
α       ``payoff_volatility``  volatility of the final value                     money / (unit · √time)
S       ``price``              equilibrium price                                 money / unit
μ, σ    ``drift``,             its drift and volatility                          money / (unit · time),
        ``volatility``                                                           money / (unit · √time)
φⁿ      ``position``           what agent n holds                                unit
φ̇ⁿ      ``rate``               how fast it trades                                unit / time
W       ``shock``              the Brownian motion that moves everything         √time
c₂      ``mean_aversion``      of two agents (γ¹ + γ²)/2                         1 / money
ε       ``asymmetry``          of two agents (γ² − γ¹)/(γ¹ + γ²)
k       ``reversion``          at which positions return in the long run         1 / time
ℓ       ``scale``              of deviations when costs are small                unit
======  =====================  ================================================  ===========================

With several assets W has an entry for each, α and ξⁿ are matrices, and costs are ½ φ̇ᵀΛφ̇.
"""
