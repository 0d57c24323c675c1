"""A level -> a repo -> a family -> the Hub: exports, the gate that checks them, and their cards."""
