"""Pictures of any size, georeferenced or not: read in windows, masks as tiled GeoTIFF, outlines in the picture's CRS.

Memory does not grow with the picture: a window is looked at, its middle is written, and GDAL keeps the rows of blocks
that are being filled. By rasterio and pyogrio, the extra `geo`.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data import images
from fewseg.data.decoding import RAW, PictureRule, chosen_bands, own_range, scaled_to_eight_bit
from fewseg.data.winners import label_map, without_specks
from fewseg.errors import DataError, DataWarning, UsageError, first_line, install_line
from fewseg.files import replacing_files
from fewseg.progress import Silent
from fewseg.runtime.lanes import side_by_side
from fewseg.segment import formats as files
from fewseg.segment.steady import Predictor
from fewseg.segment.windows import Window, count_windows, windows

FORMATS = ("geotiff", "gpkg", "geojson")
_ENDINGS = {"geotiff": ".tif", "gpkg": ".gpkg", "geojson": ".geojson"}
_DRIVERS = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\0\0\0\x0c": "JP2OpenJPEG",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
}
"""GDAL's that are taken, by how files begin: others open whatever a file names, over a network too."""
_BLOCK = 512
_CACHE = 256 * 2**20
"""Bytes of blocks that GDAL keeps."""
_SHOWN = 2048
"""Longest side of the small picture from which the range of deep values is taken, and of the overlay."""


@dataclass(frozen=True)
class Cut:
    """How a large picture is looked at, and what counts as found in a window, as for `segment_folder`."""

    side: int
    """Of a window, in pixels."""
    threshold: float = 0.5
    presence: float = 0.5
    min_area: int = 0


def outputs(stem: str, out_dir: Path, *, formats: Sequence[str], overlay: bool) -> dict[str, Path]:
    """The files that are written for one picture, by kind; the mask always is."""
    found = {kind: out_dir / f"{stem}{_ENDINGS[kind]}" for kind in dict.fromkeys(("geotiff", *formats))}
    return found | ({"overlay": out_dir / f"{stem}{files.OVERLAY}"} if overlay else {})


def segment_large(
    predictor: Predictor, path: Path, targets: dict[str, Path], cut: Cut, *, progress: Silent | None = None
) -> bool:
    """Write a picture's files, each whole or not at all; whether anything was found.

    DataError where it cannot be read. What has no value in it (NODATA, a mask, transparent) is background, and windows
    of nothing else are not looked at.
    """
    rasterio = needed("rasterio")
    names = {kind: target.name for kind, target in targets.items()}
    with rasterio.Env(GDAL_CACHEMAX=_CACHE), _opened(path) as source:
        read = _reader(source, predictor.pictures)
        with replacing_files(targets["geotiff"].parent, last=names["geotiff"]) as work:
            any_found = _write_mask(predictor, source, read, work / names["geotiff"], cut, progress or Silent())
            with rasterio.open(work / names["geotiff"], driver="GTiff") as mask:
                if "overlay" in names:
                    _write_overlay(read, mask, work / names["overlay"], predictor.names)
                if {"geojson", "gpkg"} & set(names):
                    if not mask.crs:
                        warnings.warn(
                            DataWarning(f"{path} has no CRS: its polygons are in pixels, y down"), stacklevel=2
                        )
                    _write_outlines(mask, work, names, predictor.names or (files.UNNAMED,))
    return any_found


def needed(library: str) -> Any:
    """A library of the extra `geo`; UsageError that says how to install it."""
    import importlib

    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--format geotiff and gpkg, and --window, need {library}; install it with: {install_line('geo')}"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The picture; within, nothing warns that one has no place on the earth: pixels are its coordinates then."""
    rasterio = needed("rasterio")
    with path.open("rb") as file:
        head = file.read(4)
    driver = next((name for begin, name in _DRIVERS.items() if head.startswith(begin)), None)
    if driver is None or path.suffix.lower() in RAW:
        raise DataError(f"{path} is no TIFF, JPEG 2000, PNG or JPEG, which are read in windows; save it as TIFF")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path, driver=driver) as source:
                yield source
    except rasterio.errors.RasterioError as error:
        why = first_line(error.__cause__ or error)  # what GDAL said
        raise DataError(f"{path} cannot be read in windows ({why}); copy it again, or save it as TIFF anew") from error


Read = Callable[..., tuple[NDArray[np.uint8], NDArray[np.bool_]]]
"""A part of the picture, `window=` or all of it `out_shape=` small: RGB (H, W, 3), and where it has values (H, W)."""


def _reader(source: Any, rule: PictureRule) -> Read:
    """What reads a picture's parts as `rule` says, deep values in one range for all."""
    from rasterio.enums import ColorInterp

    colors = [
        index for index, kind in zip(source.indexes, source.colorinterp, strict=True) if kind != ColorInterp.alpha
    ]
    if not colors or np.dtype(source.dtypes[0]).kind not in "uif":
        raise DataError(f"{source.name} holds {source.dtypes[0]} in {source.count} bands, which is no picture")
    palette = source.colormap(1) if source.colorinterp[0] == ColorInterp.palette else None
    table = np.array([palette.get(i, (0, 0, 0, 0))[:3] for i in range(256)], np.uint8) if palette else None
    bands = [colors[band - 1] for band in chosen_bands(len(colors), rule)]

    def values(**part: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        shape = part.get("out_shape")
        part |= {} if shape is None else {"out_shape": (len(bands), *shape)}
        known = source.dataset_mask(**part | ({} if shape is None else {"out_shape": shape})) > 0
        return np.moveaxis(source.read(bands, **part), 0, -1), known

    scaled: Callable[[NDArray[Any]], NDArray[np.uint8]] = partial(np.asarray, dtype=np.uint8)
    if table is not None:
        scaled = lambda pixels: table[pixels[..., 0]]  # noqa: E731
    elif source.dtypes[0] != "uint8":
        sample, known = values(out_shape=_reduced(source))
        low, high = rule.range or own_range(sample[known])
        scaled = partial(scaled_to_eight_bit, low=low, high=high)

    def read(**part: Any) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        pixels, known = values(**part)
        return scaled(pixels), known

    return read


def _reduced(source: Any) -> tuple[int, int]:
    """(h, w) of the picture with a longest side of `_SHOWN`."""
    factor = min(1.0, _SHOWN / max(source.height, source.width))
    return max(1, round(source.height * factor)), max(1, round(source.width * factor))


def _write_mask(predictor: Predictor, source: Any, read: Read, path: Path, cut: Cut, progress: Silent) -> bool:
    """A tiled GeoTIFF of labels, where the picture lies; 0/255 of one class, a palette of several."""
    rasterio = needed("rasterio")
    several = files.is_label_map(predictor.names)
    place = {"crs": source.crs, "transform": source.transform} if source.crs else {}
    tiles = {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "compress": "deflate", "bigtiff": "if_safer"}
    shape = {"height": source.height, "width": source.width, "count": 1, "dtype": "uint8"}
    any_found = False
    with rasterio.open(path, "w", driver="GTiff", **shape, **tiles, **place) as target:
        if source.gcps[0] and not source.crs:
            target.gcps = source.gcps
        if several:
            target.write_colormap(1, {i: (*images.class_color(i), 255) if i else (0, 0, 0, 255) for i in range(256)})
        parts = windows(source.height, source.width, cut.side)
        shown = progress(parts, f"looking at {source.name}", count_windows(source.height, source.width, cut.side))
        given = ((window, *read(window=_box(*window[:4]))) for window in shown)
        labelled = partial(_labelled, predictor, cut, (source.height, source.width))
        for window, labels in side_by_side(labelled, given, lanes=predictor.engine.lanes):
            if labels is not None and labels.any():
                any_found = True
                core = labels[window.core]
                with _writing(path):
                    target.write(core if several else core * np.uint8(255), 1, window=_box(*window[4:]))
    _check_written(path)
    return any_found


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """GDAL's errors as the system's: they are not of the picture that is read meanwhile."""
    try:
        yield
    except needed("rasterio").errors.RasterioError as error:
        why = first_line(error.__cause__ or error)
        raise OSError(
            f"{path.name} was not written wholly ({why}); make room on the disk, or write elsewhere"
        ) from error


def _check_written(path: Path) -> None:
    """Read it again: GDAL says nothing where the last of a file finds no room."""
    with _writing(path), needed("rasterio").open(path, driver="GTiff") as mask:
        for _, window in mask.block_windows(1):
            mask.read(1, window=window)


def _labelled(
    predictor: Predictor,
    cut: Cut,
    size: tuple[int, int],
    given: tuple[Window, NDArray[np.uint8], NDArray[np.bool_]],
) -> tuple[Window, NDArray[np.uint8] | None]:
    """A window's labels; None where it has no values."""
    window, pixels, known = given
    if not known.any():
        return window, None
    results = predictor.predict_each(pixels).values()
    labels = label_map((result.proba_if(cut.presence) for result in results), threshold=cut.threshold)
    labels[~known] = 0
    goes_on = window.top > 0, window.left > 0, window.bottom < size[0], window.right < size[1]
    return window, without_specks(labels, cut.min_area, goes_on=goes_on)


def _box(top: int, left: int, bottom: int, right: int) -> Any:
    return needed("rasterio.windows").Window(left, top, right - left, bottom - top)


def _write_overlay(read: Read, mask: Any, path: Path, names: Sequence[str] | None) -> None:
    """A small picture of the whole with what was found."""
    shape = _reduced(mask)
    labels = mask.read(1, out_shape=shape)
    labels = labels if files.is_label_map(names) else (labels > 0).astype(np.uint8)
    picture = Image.fromarray(read(out_shape=shape)[0])
    images.write_image(files.overlay(picture, labels, names), path, quality=90)


def _write_outlines(mask: Any, work: Path, names: dict[str, str], classes: Sequence[str]) -> None:
    """Every connected part (8 neighbours) as a polygon in the picture's CRS, or in pixels where it has none."""
    outlines = work / names.get("geojson", "outlines.geojson")
    _write_geojson(mask, outlines, classes)
    if "gpkg" in names:
        _write_geopackage(outlines, work / names["gpkg"], mask.crs)
    if "geojson" not in names:
        outlines.unlink()


def _write_geojson(mask: Any, path: Path, classes: Sequence[str]) -> None:
    """One feature a line, as they come."""
    shapes = needed("rasterio.features").shapes
    rasterio = needed("rasterio")
    band, pixel = rasterio.band(mask, 1), abs(mask.transform.determinant)
    code = mask.crs.to_epsg() if mask.crs else None
    crs = {"crs": {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{code}"}}} if code else {}
    head = json.dumps({"type": "FeatureCollection", **crs})[:-1]
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{head}, "features": [')
        found = shapes(band, mask=band, connectivity=8, transform=mask.transform)
        for number, (geometry, value) in enumerate(found):
            label = 1 if len(classes) == 1 else int(value)
            properties = {"class": classes[label - 1], "class_id": label, "pixels": round(_area(geometry) / pixel)}
            feature = {"type": "Feature", "properties": properties, "geometry": geometry}
            file.write(("," if number else "") + "\n" + json.dumps(feature))
        file.write("\n]}\n")


def _area(geometry: dict[str, Any]) -> float:
    """Of a polygon without its holes, in the square of its coordinates' unit."""

    def ring(corners: Sequence[Sequence[float]]) -> float:
        x, y = (np.array(corners) - corners[0]).T
        return abs(float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())) / 2

    outer, *holes = geometry["coordinates"]
    return ring(outer) - math.fsum(map(ring, holes))


def _write_geopackage(outlines: Path, path: Path, crs: Any) -> None:
    """The same features as a GeoPackage."""
    raw = needed("pyogrio.raw")
    meta, _, geometry, values = raw.read(outlines)
    text = crs.to_wkt() if crs else None
    how = {"driver": "GPKG", "layer": "masks", "geometry_type": "Polygon", "crs": text}
    written = io.BytesIO()  # by Python into the file, which tells of a full disk; GDAL says nothing at the end
    with warnings.catch_warnings():  # our note tells of it
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
        raw.write(written, geometry, values, meta["fields"], **how)
    path.write_bytes(written.getbuffer())
