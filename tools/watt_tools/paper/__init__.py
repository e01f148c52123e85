"""The experiments of Jiang et al. 2023, repeated with the real cores: full against partial sharding, and ours.

`wattpact paper run` measures, `wattpact paper report` compares; station/EXPERIMENTS.md is what came of it. The
trading contract in here (`book`, `fullshard`, `certified`, `joint`) is an experiment's contract: it runs on the real
ledger, replica, blocks and certificates of `watt_chain`, and no daemon knows it.
"""
