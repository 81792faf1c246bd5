"""The report: one stand-alone HTML page, its parts and its figures."""
