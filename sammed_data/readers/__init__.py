"""One file per format family; `registry.py` says which reader takes which path."""
