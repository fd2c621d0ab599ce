"""Roof room: the demo that ties data, model and bench together."""
