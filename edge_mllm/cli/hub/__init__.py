"""Commands about models: what is here, what is known, fetched, given away."""
