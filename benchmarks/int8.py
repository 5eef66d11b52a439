"""What the shipped model's back-end costs and gives in 8 bits: `python -m benchmarks.int8 VOC2012 [--photos 60]`.

Convolutions of at least `--channels` input channels are quantised by onnxruntime (static: 8-bit activations, whose
ranges 24 photos give, and weights per channel). Masks are compared with the 32-bit graphs' and with the labels; every
photo has the first one of its class as support. Seconds are processor time on OMP_NUM_THREADS, the least of 12 runs.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fewseg.predictor import FewShotPredictor
from fewseg.runtime.graphs import QUERY, OnnxSegmenter
from fewseg.storage.engines import graphs_of


def write_float(source: Path, target: Path) -> None:
    """A graph with its weights in it, those of 16 bits as 32."""
    import onnx
    from onnx import TensorProto, numpy_helper

    model = onnx.load(source)
    half = {t.name: t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16}
    casts = [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in half]
    for node in casts:
        tensor = half[node.input[0]]
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, node.output[0]))
        model.graph.node.remove(node)
    onnx.save(model, target)


def quantise(source: Path, target: Path, photos: list[Path], channels: int) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Photos(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(photos)

        def get_next(self) -> Any:
            photo = next(self.left, None)
            return photo and {"image": pixels(photo)}

    ready = target.with_suffix(".ready.onnx")
    quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
    graph = onnx.load(ready).graph
    width = {t.name: t.dims[1] for t in graph.initializer if len(t.dims) == 4}
    wide = [n.name for n in graph.node if n.op_type == "Conv" and width.get(n.input[1], 0) >= channels]
    kinds: dict[str, Any] = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    kinds |= {"quant_format": QuantFormat.QDQ, "op_types_to_quantize": ["Conv"]}
    quantize_static(str(ready), str(target), Photos(), nodes_to_quantize=wide, **kinds)


def pixels(photo: Path) -> np.ndarray:
    return np.asarray(Image.open(photo).convert("RGB"))


def cases(root: Path, count: int) -> Iterator[tuple[int, Path, Path]]:
    """A class, the labels of its first photo, and those of another."""
    found = defaultdict(list)
    for file in sorted((root / "SegmentationClass").glob("*.png"))[::10]:
        labels = np.asarray(Image.open(file))
        sizes = np.bincount(labels[labels < 255], minlength=21)[1:]
        if sizes.any():
            found[int(sizes.argmax()) + 1].append(file)
    each = [(c, first, other) for c, (first, *others) in found.items() for other in others]
    return iter(each[:count])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--photos", type=int, default=60)
    parser.add_argument("--channels", type=int, nargs="+", default=[1, 100])
    given = parser.parse_args()
    folder = graphs_of("lite")
    assert folder is not None

    def photo(labels: Path) -> Path:
        return given.root / "JPEGImages" / f"{labels.stem}.jpg"

    files = sorted((given.root / "SegmentationClass").glob("*.png"))
    calibration = [photo(file) for file in files[1 :: max(1, len(files) // 24)][:24]]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_float(folder / QUERY, work / QUERY)
        engines = {"32 bits": OnnxSegmenter(folder)}
        for channels in given.channels:
            copy = shutil.copytree(folder, work / str(channels))
            quantise(work / QUERY, copy / QUERY, calibration, channels)
            engines[f"8 bits from {channels} channels on"] = OnnxSegmenter(copy)
            print(f"{channels}: {(copy / QUERY).stat().st_size / 1e6:.1f} MB with its weights")
        masks: dict[str, list[np.ndarray]] = defaultdict(list)
        shares: dict[str, dict[int, np.ndarray]] = defaultdict(lambda: defaultdict(lambda: np.zeros(2)))
        for number, support, query in cases(given.root, given.photos):
            labels = np.asarray(Image.open(query))
            truth, known = labels == number, labels != 255
            for told, engine in engines.items():
                predictor = FewShotPredictor(engine)
                predictor.set_support(pixels(photo(support)), np.asarray(Image.open(support)) == number)
                mask = predictor.predict(pixels(photo(query)))
                masks[told].append(mask)
                shares[told][number] += (mask & truth & known).sum(), ((mask | truth) & known).sum()
        for told, engine in engines.items():
            pairs = zip(masks["32 bits"], masks[told], strict=True)
            ious = [(a & b).sum() / (a | b).sum() if (a | b).any() else 1.0 for a, b in pairs]
            classes = np.mean([inside / union for inside, union in shares[told].values()])
            seconds = []
            for _ in range(12):
                start = time.process_time()
                engine.encode_query(pixels(calibration[0]))
                seconds.append(time.process_time() - start)
            print(
                f"{told}: IoU with 32 bits {np.mean(ious):.3f} (worst {min(ious):.3f}), with the labels "
                f"{100 * classes:.1f}, a photo encoded in {1000 * min(seconds):.0f} ms"
            )


if __name__ == "__main__":
    main()
