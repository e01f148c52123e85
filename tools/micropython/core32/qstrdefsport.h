// No names beyond those of the core.
