"""What a frozen encoder knows: small heads trained on its hidden states, after SUPERB (arXiv 2105.01051)."""
