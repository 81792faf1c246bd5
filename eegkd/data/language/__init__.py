"""Class texts, conversations, and rows of tokens packed from them."""
