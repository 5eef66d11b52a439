"""What a model encodes, kept: of every query image, and of every support image with its class.

Encoded features are a pure function of the image (and mask). Every image is encoded on its own, never in a batch, so
that the numbers do not depend on what it met in a batch.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from fewseg.features.overflow import FeatureFile
from fewseg.models.base import Features, FewShotSegmenter
from fewseg.models.fast import accelerate


class FeatureCache:
    """Features of a model by key, in memory up to a budget; the least recently used go first.

    `gigabytes` 0 keeps nothing. What `expect` says will be used again goes to a temporary file of at most
    `file_gigabytes` in the system's temporary folder when memory is full. The result is the same as without
    it. Several threads may use it.
    """

    def __init__(
        self,
        model: FewShotSegmenter,
        *,
        gigabytes: float = 2.0,
        file_gigabytes: float = 16.0,
        file: Callable[..., FeatureFile] = FeatureFile,
    ) -> None:
        self.model = accelerate(model)
        self.budget = int(gigabytes * 1e9)
        self.used = 0
        self.full = False
        """Whether something that is expected to be used again had to be dropped."""
        self._kept: OrderedDict[Hashable, Features] = OrderedDict()
        self._file = file(limit=file_gigabytes * 1e9 if self.budget else 0)
        self._filed: dict[Hashable, Features] = {}
        self._uses: Counter[Hashable] = Counter()
        self._lock = threading.Lock()
        self._computing: dict[Hashable, threading.Lock] = {}

    @property
    def filed(self) -> int:
        """Bytes in the file."""
        return self._file.used

    def query(self, key: Hashable, image: Tensor) -> Features:
        """Encoded query (1, 3, H, W)."""
        return self.get(("query", key), lambda: self.model.encode_query(image))

    def support(
        self, keys: Sequence[Hashable], images: Tensor, masks: Tensor, class_id: Tensor | None = None
    ) -> Features:
        """Encoded supports (1, K, 3, H, W) with masks (1, K, H, W), each shot under its own key; `class_id` (1,) for a
        method that takes it.
        """

        def encoded(k: int) -> Features:
            ids = (class_id,) if self.model.takes_classes else ()
            return self.model.encode_support(images[:, k : k + 1], masks[:, k : k + 1], *ids)

        return stack_supports([[self.get(("support", key), partial(encoded, k)) for k, key in enumerate(keys)]])

    def expect(self, keys: Iterable[Hashable]) -> None:
        """Say what `get` will be asked for from now on, as often as it will: what has uses left is not dropped while
        the file has room, what has none goes first.
        """
        self._uses, self.full = Counter(keys), False

    def holds(self, key: Hashable) -> bool:
        """Whether the features are kept, so that `get` will not compute them."""
        return key in self._kept or key in self._filed

    def get(self, key: Hashable, compute: Callable[[], Features]) -> Features:
        """The features of a key; computed if they are not kept."""
        with self._lock:
            computing = self._computing.setdefault(key, threading.Lock())
        with computing:  # who comes second waits for the first and finds it
            with self._lock:
                found = self._find(key)
            if found is None:
                found = compute()
                with self._lock:
                    self._keep(key, found)
        return found

    def _find(self, key: Hashable) -> Features | None:
        if not self.holds(key):
            return None
        self._touch(key)
        return self._kept.get(key) or {name: f.to(self.model.device) for name, f in self._filed[key].items()}

    def _keep(self, key: Hashable, features: Features) -> None:
        if nbytes(features) > self.budget:
            self._touch(key)
            self._move_to_file(key, features)
            return
        self._kept[key] = features
        self.used += nbytes(features)
        self._touch(key)
        while self.used > self.budget:
            first, dropped = self._kept.popitem(last=False)
            self.used -= nbytes(dropped)
            self._move_to_file(first, dropped)

    def _touch(self, key: Hashable) -> None:
        """Count a use; the last expected one puts the key at the end that goes first."""
        last_use = self._uses[key] == 1
        if self._uses[key]:
            self._uses[key] -= 1
        if key in self._kept:
            self._kept.move_to_end(key, last=not last_use)

    def _move_to_file(self, key: Hashable, features: Features) -> None:
        if self._uses[key] and key not in self._filed:
            if filed := self._file.put(features):
                self._filed[key] = filed
            else:
                self.full = True


def nbytes(features: Features) -> int:
    """Bytes that the tensors take."""
    return sum(f.numel() * f.element_size() for f in features.values())


def stack_queries(queries: Sequence[Features]) -> Features:
    """Queries of one each as a batch."""
    if len(queries) == 1:
        return queries[0]
    return {name: torch.cat([f[name] for f in queries]) for name in queries[0]}


def stack_supports(supports: Sequence[Sequence[Features]]) -> Features:
    """Per episode its K supports of one each, as a batch (B, K, ...); copied once, and in their memory layout."""
    shots = [shot for episode in supports for shot in episode]
    if len(shots) == 1:
        return shots[0]
    batch = (len(supports), len(supports[0]))
    return {name: torch.cat([f[name].flatten(0, 1) for f in shots]).unflatten(0, batch) for name in shots[0]}
