"""`fewseg serve`: the API and the page on a server (the extra `serve`)."""
