"""Suites of published tasks, run over seeds and compared: each only calls the layers below."""
