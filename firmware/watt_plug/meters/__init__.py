"""Parsers of metering chips: bytes in, integers out."""
