"""Peak memory of a full trace of a long text through a 130m-shaped model: `python tests/mamba/long_text.py TOKENS`.

24 layers, d_inner 1536, d_state 16, random weights; every signal of every layer is taken and reduced to statistics, the
state's root mean square at every token included, chunk-major. Prints a JSON line. Measured: 65,536 tokens, backend "c"
(a second argument), 28 minutes on one core of a busy machine, peak 1.39 GiB. With "numpy", whose arithmetic is float64,
the peak is 1.90 GiB (8,192 tokens, 5 minutes; it does not grow with the length).
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ssmtheory.mamba import MambaConfig, MambaLM
from ssmtheory.mamba.initialize import initial_weights
from ssmtheory.scan import selective_scan


def main(tokens: int, backend: str) -> None:
    """Stream the tokens and keep mean squares of every signal."""
    config = MambaConfig.mamba1(d_model=768, n_layer=24, vocab_size=50280)
    model = MambaLM(config, initial_weights(config), backend=backend)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (1, tokens))
    names = ("residual", "hidden", "u", "z", "delta", "B", "C", "y", "gated", "update")
    sums = {name: np.zeros(config.n_layer) for name in (*names, "state")}
    state_rms = np.zeros((config.n_layer, tokens), np.float32)

    def tap(layer: int, s: Any) -> None:
        for name in names:
            sums[name][layer] += float(np.square(getattr(s, name), dtype=np.float64).sum())

        def reduce(states: np.ndarray, start: int) -> None:
            at = s.start + start
            mean = np.square(states).mean(axis=(0, 2, 3))
            state_rms[layer, at : at + states.shape[1]] = np.sqrt(mean)

        selective_scan(s.u, s.delta, s.A, s.B, s.C, initial_state=s.initial_state, reduce=reduce)

    began = time.monotonic()
    seen = [0]

    def on_logits(start: int, logits: Any) -> None:
        seen[0] += logits.shape[1]
        print(f"{start + logits.shape[1]} tokens, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    model.stream(ids, tap, chunk=1024, on_logits=on_logits)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        json.dumps(
            {
                "tokens": seen[0],
                "backend": str(model.backend),
                "seconds": round(time.monotonic() - began, 1),
                "peak_rss_gib": round(peak, 3),
                "state_rms_finite": bool(np.isfinite(state_rms).all()),
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "auto")
