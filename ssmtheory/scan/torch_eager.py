"""What torch.compile must not trace: each of these is a break in its graph, and runs as it would without.

Loops over time in Python would be unrolled, and compiled for minutes; `reduce` wants states that exist. Imported only
while torch.compile traces, because ``torch.compiler.disable`` loads the compiler.
"""

from __future__ import annotations

import torch

from ssmtheory.scan import api, torch_backend, torch_ops

__all__ = ["linear_recurrence", "plain_scan", "streamed"]

_WHY = "the scan of backend 'torch' is a loop over time; with a compiled kernel backend 'c' is one node of the graph"
plain_scan = torch.compiler.disable(api.plain_scan, reason=_WHY)
linear_recurrence = torch.compiler.disable(torch_backend.linear_recurrence, reason=_WHY)
streamed = torch.compiler.disable(torch_ops.streamed, reason="reduce wants states that exist")
