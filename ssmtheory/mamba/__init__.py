"""Mamba language models: one forward pass over the array API, checkpoints, adapters and traces."""
