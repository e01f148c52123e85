"""The fixed base of a plug: chooses which of two bundles runs. Imports nothing from a bundle."""
