"""Images as a vision-language model takes them."""
