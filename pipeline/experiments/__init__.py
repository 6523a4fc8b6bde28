"""A question's runs: planned, trained several at a time, answered."""
