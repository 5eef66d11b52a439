"""The page that teaches and finds in the browser alone: its files (`page/`), what writes them, and a local server.

site        writes the page with a model's graphs, an example and the browser's runtime into a folder
ort_web     the files of onnxruntime-web: from a folder, from the cache, or by npm; each with its hash
loopback    the folder served on this machine, with the headers that threads need
"""
