"""The web page behind `fewseg app`: mark a few photos, get masks of others (the extra `app`)."""
