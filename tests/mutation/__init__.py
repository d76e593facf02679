"""A mutation tester for the safety code: small mistakes are made in it, and a test must notice each."""
