"""Adapter SAM: models, prompts, training."""
