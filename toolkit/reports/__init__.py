"""What is told of a bundle: checks, results, times, structure, and all of it on one page."""
