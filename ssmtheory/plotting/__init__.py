"""Figures drawn from datasets: functions of (dataset, axes), one file per subject."""
