"""Run training on several processes: place, collectives, DDP, heartbeats, launcher."""
