"""Losses: `loss(prediction, noisy)` gives `[batch]` in fp32."""
