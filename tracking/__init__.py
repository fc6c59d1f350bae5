"""What a run says while it runs: console, metrics.jsonl, wandb, TensorBoard."""
