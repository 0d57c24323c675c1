"""Function-preserving changes of real weights."""
