"""What a third party writes: one system and one corpus."""
