"""The store's behavioural suite: what the port promises, checked on every engine of `engines.py` alike."""
