"""Getting datasets: what there is, what it costs, downloads, archives, whether all is there."""
