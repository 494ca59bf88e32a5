"""Network parts that several capabilities share."""
