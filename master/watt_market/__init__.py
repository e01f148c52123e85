"""The two-level market of the paper in integers; normative text: master/BIDDING.md."""
