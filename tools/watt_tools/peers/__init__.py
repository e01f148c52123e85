"""Other people's market code, run in environments of its own."""
