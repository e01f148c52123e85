"""Trades across areas: the life of a trade on each of its chains, as tables (CONTRACT.md, trades across areas)."""
