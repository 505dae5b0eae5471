"""What an experiment reads: text and other series, from the package or from files."""
