# Masks of photos, without torch. The page and the API, which print an address with a token:
#   docker run --rm --publish 127.0.0.1:8040:8040 fewseg
# In a folder of photos:
#   docker run --rm --user "$(id -u)" --volume "$PWD:/photos" fewseg segment --support a.jpg --mask a.png --out masks .
FROM python:3.12-slim AS build
COPY pyproject.toml README.md LICENSE /fewseg/
COPY src /fewseg/src
RUN python -m venv /opt/fewseg
RUN /opt/fewseg/bin/python -m pip install --no-cache-dir "/fewseg[serve]"

FROM python:3.12-slim
COPY --from=build /opt/fewseg /opt/fewseg
RUN useradd --create-home fewseg
USER fewseg
WORKDIR /photos
ENTRYPOINT ["/opt/fewseg/bin/fewseg"]
EXPOSE 8040
CMD ["serve", "--host", "0.0.0.0", "--port", "8040", "--no-browser"]
