"""The verbs, one module each: options, and the calls they make."""
