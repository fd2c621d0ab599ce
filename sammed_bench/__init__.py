"""Score promptable models per organ, modality and prompt mode."""
