"""The local page: look at a corpus, replay results, click once."""
