"""Programs that time the parts, most against another library."""
