# Masks of photos, without torch. In a folder of photos:
#   docker run --rm --user "$(id -u)" --volume "$PWD:/photos" fewseg segment --support a.jpg --mask a.png --out masks .
FROM python:3.12-slim AS build
COPY pyproject.toml README.md LICENSE /fewseg/
COPY src /fewseg/src
RUN python -m venv /opt/fewseg
RUN /opt/fewseg/bin/python -m pip install --no-cache-dir /fewseg

FROM python:3.12-slim
COPY --from=build /opt/fewseg /opt/fewseg
RUN useradd --create-home fewseg
USER fewseg
WORKDIR /photos
ENTRYPOINT ["/opt/fewseg/bin/fewseg"]
CMD ["--help"]
