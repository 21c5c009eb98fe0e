"""Formats that are recognised and not read: what a file is, and how to make of it one that is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from spectra_cli.checkpoints.damage import corrupt
from spectra_cli.checkpoints.formats.limits import quoted
from spectra_cli.errors import CorruptCheckpointError, SpectraError, UnsupportedFormatError
from spectra_cli.tensors import ITEMSIZE, TensorInfo

_TORCH_SAVE = "Load it with its own library and save the state dict with torch.save or safetensors"

_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    # offset, bytes, what it is, remedy
    (0, b"GGUF", "a GGUF file (llama.cpp)", "Load the model it was converted from, or dequantize it with transformers' "
     "from_pretrained(..., gguf_file=...) and save_pretrained"),
    (0, b"ggml", "a GGML file (llama.cpp)", "Load the model it was converted from"),
    (0, b"ggjt", "a GGML file (llama.cpp)", "Load the model it was converted from"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, TensorFlow)",
     "Load it in Keras, or with transformers' from_pretrained(..., from_tf=True), and save the weights as safetensors"),
    (0, b"\x93NUMPY", "a NumPy array", "Save a dictionary of arrays with safetensors.numpy.save_file"),
    (0, b"\x1f\x8b", "a gzip archive", "Unpack it with gunzip"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", "Unpack it with 'zstd -d'"),
    (0, b"\xfd7zXZ\x00", "an xz archive", "Unpack it with 'xz -d'"),
    (0, b"BZh", "a bzip2 archive", "Unpack it with bunzip2"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-zip archive", "Unpack it"),
    (0, b"PK\x05\x06", "an empty zip archive", "Save the checkpoint again"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Run 'git lfs pull'"),
    (0, b"PAR1", "a Parquet table", "Pass the checkpoints from which it was made"),
    (0, b"TFL3", "a TensorFlow Lite model", "Use the checkpoint from which it was exported"),
    (4, b"TFL3", "a TensorFlow Lite model", "Use the checkpoint from which it was exported"),
)  # fmt: skip
_TENSORFLOW_INDEX_TAIL = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # the magic number of a LevelDB table, little-endian


def _is_packed(dtype: str) -> bool:
    """Whether elements of this type may be packed numbers or need a scale: integers, and all of one byte."""
    return dtype.startswith(("int", "uint")) or ITEMSIZE[dtype] == 1


def _is_any(_dtype: str) -> bool:
    return True


_PACKED: tuple[tuple[re.Pattern[str], str, Callable[[str], bool], str], ...] = tuple(
    (re.compile(pattern), companion, is_told_by, what)
    for pattern, companion, is_told_by, what in (
        # Name with a stem, what the tensor that tells is called after the stem, how its dtype tells, the scheme.
        (r"(.*\.)?(qweight|qzeros)", "{0}", _is_packed, "GPTQ or AWQ"),
        (r"((.*\.)?weight)\.(absmax|quant_map|nested_absmax|quant_state\..*)", "{1}", _is_any, "bitsandbytes 4-bit"),
        (r"((.*\.)?weight)\.SCB", "{1}", _is_packed, "bitsandbytes 8-bit"),
        (r"(.*\.)?(SCB|weight_format)", "{1}weight", _is_packed, "bitsandbytes 8-bit"),
        (r"(.*\.)?weight_packed", "{0}", _is_packed, "compressed-tensors"),
        (r"((.*\.)?weight)_scale_inv", "{1}", _is_packed, "block-scaled float8"),
        (r"(.*\.)?W_q", "{0}", _is_packed, "HQQ"),
        (r"(.*_)scales", "{1}blocks", _is_packed, "MXFP4"),
    )
)


def refuse_content(head: bytes, tail: bytes) -> SpectraError:
    """Words for a file that is in no format that spectra reads.

    Args:
        head: its first bytes, 512 where it has that many.
        tail: its last 8 bytes.

    Returns:
        The error to raise: unsupported where the format is recognised, else corrupt.
    """
    if not head:
        return corrupt("the file is empty")
    for offset, magic, what, remedy in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return UnsupportedFormatError(f"this is {what}", remedy=remedy)
    return (
        _refuse_text(head)
        or _refuse_structure(head, tail)
        or CorruptCheckpointError(
            "the file starts like no checkpoint format", remedy="Check the path, or copy the checkpoint again"
        )
    )


def _refuse_text(head: bytes) -> SpectraError | None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return CorruptCheckpointError("this is a web page, not a checkpoint", remedy="Download the file again")
    if text.startswith((b"{", b"[")):
        return UnsupportedFormatError("this is a JSON file without weights", remedy="Pass the checkpoint beside it")
    return None


def _refuse_structure(head: bytes, tail: bytes) -> SpectraError | None:
    """Formats without a magic number at a fixed place."""
    first, second = head[0], head[1] if len(head) > 1 else 0
    if head[257:262] == b"ustar":
        return _refuse_tar(head)
    if tail == _TENSORFLOW_INDEX_TAIL:
        what, remedy = "the index of a TensorFlow checkpoint", _TORCH_SAVE
    elif first == 0x80 and second <= 5:
        what = "a plain pickle, not a file of torch.save"
        remedy = "Load it where you trust it and save the state dict with torch.save or safetensors"
    elif re.match(rb"\x08[\x01-\x20][\x12\x1a\x22:]", head):
        what, remedy = "an ONNX model, as far as its first bytes tell", "Use the checkpoint it was exported from"
    elif (0x81 <= first <= 0x8F and 0xA0 <= second <= 0xBF) or first in {0xDE, 0xDF}:
        what = "a msgpack file (Flax), as far as its first bytes tell"
        remedy = "Load it with transformers' from_pretrained(..., from_flax=True) and save_pretrained"
    else:
        return None
    return UnsupportedFormatError(f"this is {what}", remedy=remedy)


def refuse_archive(names: Collection[str], prefix: str | None) -> SpectraError | None:
    """Words for a zip archive that is not what ``torch.save`` writes, or None where it may be.

    Args:
        names: of its members.
        prefix: directory of ``data.pkl`` inside it, None where there is none.
    """
    if prefix is not None and (
        f"{prefix}constants.pkl" in names or any(name.startswith(f"{prefix}code/") for name in names)
    ):
        return UnsupportedFormatError(
            "this is a TorchScript archive: a program with its weights",
            remedy="Run torch.save(torch.jit.load(PATH, map_location='cpu').state_dict(), 'model.pt')",
        )
    if prefix is not None:
        return None
    if names and all(name.endswith(".npy") for name in names):
        what, remedy = "a NumPy archive (npz)", "Save the arrays with safetensors.numpy.save_file"
    elif any(name.endswith(".weights.h5") for name in names):
        what, remedy = "a Keras model", "Load it in Keras and save its weights with safetensors"
    elif any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        what, remedy = "an exported PyTorch program (pt2)", "Save the state dict: torch.export.load(PATH).state_dict"
    elif any(name.endswith(".data/version") for name in names):
        what, remedy = "a torch.package archive", "Import the model and save its state dict with torch.save"
    else:
        what, remedy = "a zip archive without a checkpoint's data.pkl", "Unpack it and pass the checkpoint inside"
    return UnsupportedFormatError(f"this is {what}", remedy=remedy)


def refuse_packed(tensors: Mapping[str, TensorInfo]) -> SpectraError | None:
    """Words for a checkpoint whose weights are packed integers or need scales that are stored apart.

    A name is not enough, since a model may have parameters of any name: the packed tensor must be there, in a type that
    packs.

    Args:
        tensors: of the checkpoint, by name.
    """
    for name in tensors:
        for pattern, companion, is_told_by, scheme in _PACKED:
            match = pattern.fullmatch(name)
            packed = tensors.get(companion.format(name, match[1] or "")) if match else None
            if packed is not None and is_told_by(packed.dtype):
                return UnsupportedFormatError(
                    f"its weights are packed by {scheme} ({quoted(name)}); the stored numbers are not the weights",
                    remedy="Use the checkpoint it was made from, or dequantize the model and save it in 16 or 32 bits",
                )
    return None


def refuse_deepspeed(files: Collection[str]) -> SpectraError:
    """Words for the files of DeepSpeed's ranks."""
    if any("zero_pp_rank" in name for name in files):
        return UnsupportedFormatError(
            "these are partitions of DeepSpeed ZeRO: each rank holds a slice of all weights as one flat vector",
            remedy="Run the zero_to_fp32.py that lies beside them: 'python zero_to_fp32.py . OUTPUT'",
        )
    return UnsupportedFormatError(
        f"these are {len(files)} model-parallel ranks of DeepSpeed, whose weights are split",
        remedy="Merge them with DeepSpeed's ds_to_universal.py or the converter of your framework",
    )


def refuse_megatron(ranks: Collection[str]) -> SpectraError:
    """Words for a Megatron checkpoint of several ranks."""
    return UnsupportedFormatError(
        f"these are {len(ranks)} model-parallel ranks of Megatron, whose weights are split",
        remedy="Merge them with Megatron's tools/checkpoint/convert.py and parallel sizes of 1",
    )


def _refuse_tar(head: bytes) -> SpectraError:
    first_member = head[:100].split(b"\0")[0]
    if first_member in {b"sys_info", b"pickle", b"storages", b"tensors"}:
        return UnsupportedFormatError(
            "this is a tar file of torch before 0.1.10",
            remedy="Load it with torch.load(PATH, weights_only=False) where you trust it, and torch.save it again",
        )
    return UnsupportedFormatError("this is a tar archive", remedy="Unpack it and pass the checkpoint inside")
