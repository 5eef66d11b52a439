"""fewseg: few-shot semantic segmentation."""
