"""Trust in a corpus: duplicates, leaks and defects, with the recall of the search beside them."""
