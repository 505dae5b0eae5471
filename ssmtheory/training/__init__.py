"""Training (torch): one deterministic, resumable loop and its checkpoints."""
