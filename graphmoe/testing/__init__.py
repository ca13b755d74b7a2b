"""References and checks for those who test against or extend the package."""
