"""Lightning callbacks: saving, validating, logging, and ends that explain themselves."""
