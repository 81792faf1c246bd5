"""Files of a BIDS data set: names, tables and what they say of recordings."""
