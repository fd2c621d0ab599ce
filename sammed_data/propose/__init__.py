"""`sammed data init`: a folder of one's own -> a proposed catalogue entry with its doubts."""
