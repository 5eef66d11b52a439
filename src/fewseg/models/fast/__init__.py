"""The same numbers, faster: views of models for use and for frozen parts, and what an exported graph needs."""
