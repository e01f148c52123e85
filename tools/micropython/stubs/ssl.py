"""Stands in for the built-in module, which the WebAssembly build lacks."""
