"""The ledger of claims: what the papers state, what this package finds, and whether the two still agree.

`paper_repro/<paper>/claims.toml` holds the claims of one paper, `claims` reads them, `ledger` runs them, `mutation`
breaks the code on purpose to see that a claim notices. `ssmtheory repro list | run | check` is the way in.

A claim is run by a function in `checks/<paper>.py`, which calls the library, or by an experiment's preset and a
selection of its dataset. Nothing in a claims file is evaluated as code.
"""

from __future__ import annotations
