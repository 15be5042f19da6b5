"""What a job adds to a model without touching its weights: LoRA stacks, textual inversions, another VAE."""
