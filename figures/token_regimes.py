"""The three regimes of tokens under the depth equation in one dimension, each with its law (arXiv 2410.03292).

Claim: mu < 0: 2 |mu| Delta0 t x_l^2 tends to 1 for the first token and to 1 - e^{-a Delta0} for all others; mu > 0 and
every S_Delta x_l < 0: every token grows like ln t, not like its l-th power; otherwise the first p with S_Delta x_p >
0 blows up at a finite T* as (3 mu s (T* - t))^{-1/3}. Status: proved (the laws), measured (the curves).
(a) Sizes. (b) Plateaus. (c) Sizes against ln t, up to t = e^99965. (d) Sizes against -ln(T* - t): token 3, of the other
sign, follows at full speed; token 4 grows as ln ln alone and shields token 5; token 1 stays finite.
"""

from __future__ import annotations

from typing import Any

from ssmtheory.plotting import token_ode

NEEDS = {"tree": "token_ode.default"}


def draw(venue: str, tree: Any) -> Any:
    """Draw the three regimes and the plateaus."""
    return token_ode.figure_regimes(tree, venue)
