"""The files that a network is exported to: one class for each kind, and the catalog that lists them.

A format writes a module with facts about it (a name, and a text for each), and reads it again as something that turns
pixels into logits. Nothing heavy is imported before it is needed: the names are asked for by the command line.
"""

import importlib.util
import json
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.export import ExportedProgram

    from explore.exporting.form import Read

FACTS = "facts.json"  # among the extra files of a .pt2
_INPUT, _OUTPUT, _BATCH = "images", "logits", "batch"
# What the exporters say to their own developers: of operators that nobody asked for, and of constants left as they are.
_TALKATIVE = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")


class Format(ABC):
    """A kind of file; its name is what `format=` is given."""

    name: ClassVar[str]
    suffix: ClassVar[str]
    runtime: ClassVar[str]  # what runs it
    libraries: ClassVar[tuple[str, ...]]  # what it needs beyond torch, from the extra `export`
    on_any_device: ClassVar[bool]  # whether it is timed on the device of the study, or on the processor
    example: ClassVar[str]  # lines of Python that read FILE and classify `images`

    def check(self) -> None:
        """Raise ValueError where a library that it needs is not installed."""
        if missing := [name for name in self.libraries if not importlib.util.find_spec(name)]:
            raise ValueError(
                f"format={self.name} needs {', '.join(missing)}, which is not installed; pip install 'explore[export]'"
            )

    @abstractmethod
    def write(self, module: "nn.Module", shape: tuple[int, int, int], facts: Mapping[str, str], path: Path) -> None:
        """Write a module in evaluation mode, for batches of any size of images of channels × height × width."""

    @abstractmethod
    def read(self, path: Path, device: "torch.device", threads: int) -> "Read":
        """What was written, as something that takes batches on the device; `threads` are those of the processor."""


class TorchExport(Format):
    """A program of torch.export: torch reads it without this package, compiles it, and sends it to other devices."""

    name = "torch_export"
    suffix = ".pt2"
    runtime = "torch.export"
    libraries = ()
    on_any_device = True
    example = """import json, torch

extra = {"facts.json": ""}
network = torch.export.load("FILE", extra_files=extra).module()
classes = json.loads(json.loads(extra["facts.json"])["classes"])
logits = network(images)  # torch.uint8, batch × CHANNELS × SIZE × SIZE, pixels from 0 to 255
print([classes[index] for index in logits.argmax(1)])"""

    def write(self, module: "nn.Module", shape: tuple[int, int, int], facts: Mapping[str, str], path: Path) -> None:
        """Write a .pt2; the facts are in its extra file `facts.json`."""
        import torch

        program = _program(module, shape)
        with _quiet(), path.open("wb") as file:  # given a path, it wants the suffix to be its own
            torch.export.save(program, file, extra_files={FACTS: json.dumps(dict(facts))})

    def read(self, path: Path, device: "torch.device", threads: int) -> "Read":
        """The program on the device; threads are those of torch."""
        import torch
        from torch.export.passes import move_to_device_pass

        from explore.exporting.form import Read

        with _quiet(), path.open("rb") as file:
            program = torch.export.load(file)
            module = (program if device.type == "cpu" else move_to_device_pass(program, device)).module()
        return Read(lambda images: module(images))  # not the module, which refuses to be put into evaluation mode


class Onnx(Format):
    """An ONNX model: for onnxruntime, and for what converts it for other hardware."""

    name = "onnx"
    suffix = ".onnx"
    runtime = "onnxruntime"
    libraries = ("onnx", "onnxscript", "onnxruntime")
    on_any_device = False
    example = """import json, onnxruntime

session = onnxruntime.InferenceSession("FILE")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
(logits,) = session.run(None, {"images": images})  # numpy.uint8, batch × CHANNELS × SIZE × SIZE, pixels from 0 to 255
print([classes[index] for index in logits.argmax(1)])"""

    def write(self, module: "nn.Module", shape: tuple[int, int, int], facts: Mapping[str, str], path: Path) -> None:
        """Write a .onnx; the facts are its metadata properties."""
        import torch

        program = _program(module, shape)
        with _quiet():
            model: Any = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=[_INPUT],
                output_names=[_OUTPUT],
                dynamic_shapes={_INPUT: {0: _BATCH}},
            )
            for node in model.model.graph.all_nodes():
                node.metadata_props.clear()
            model.model.metadata_props.update(facts)
            model.save(path)

    def read(self, path: Path, device: "torch.device", threads: int) -> "Read":
        """A session of onnxruntime on the processor."""
        import onnxruntime
        import torch

        from explore.exporting.form import Read

        assert device.type == "cpu"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        # A protocol that compiles does so with what is torch's.
        @torch.compiler.disable  # type: ignore[untyped-decorator]
        def run(images: "torch.Tensor") -> "torch.Tensor":
            return torch.from_numpy(session.run(None, {_INPUT: images.numpy()})[0])

        return Read(run)


FORMATS: dict[str, Format] = {kind.name: kind for kind in (TorchExport(), Onnx())}


def _program(module: "nn.Module", shape: tuple[int, int, int]) -> "ExportedProgram":
    import torch

    images = torch.zeros(2, *shape, dtype=torch.uint8)  # of one alone, the size of a batch would be taken for fixed
    # Without gradients: the networks have forms for training that take other operators.
    with _quiet(), torch.no_grad():
        program = torch.export.export(module, (images,), dynamic_shapes={_INPUT: {0: torch.export.Dim(_BATCH)}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of source with the folders of this machine
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters about their own insides
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
