"""From public medical segmentation datasets to a Parquet corpus of 2D images with masks."""
