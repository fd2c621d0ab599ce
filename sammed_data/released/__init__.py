"""Corpora that others released, as sources: many datasets in one tree, under one entry."""
