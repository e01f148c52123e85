"""The `wattpact` command and what stands behind it: demo, network maker, export, verifier, pictures."""
