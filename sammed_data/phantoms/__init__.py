"""Procedural anatomy: patients that differ, drawn as each modality would show them."""
