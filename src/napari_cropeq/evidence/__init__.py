"""What shows that it works: tiles against the whole, results against a truth, pictures and pages of both."""
