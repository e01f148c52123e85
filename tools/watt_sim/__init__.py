"""A simulated area: the real consensus and ledger cores on a seeded network, clock and disk (station/CONSENSUS.md).

Everything in it follows from a seed: `run.run_seed` plays one, `twins.run_scenario` plays one of the systematic
scenarios with doubled validators, `mutants` checks that planted bugs are found. The daemons import nothing from here.
"""
