"""The part of Triton's model_config.proto that our configurations use, as a protobuf message to read them with.

Names, numbers and types are those of triton-inference-server/common, protobuf/model_config.proto (2026-07); where
tritonclient is installed, `test_triton.py` compares them with the ones that it ships, compiled.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FIELD = descriptor_pb2.FieldDescriptorProto
SCALARS = {"string": FIELD.TYPE_STRING, "bool": FIELD.TYPE_BOOL, "int32": FIELD.TYPE_INT32, "int64": FIELD.TYPE_INT64,
           "uint32": FIELD.TYPE_UINT32, "uint64": FIELD.TYPE_UINT64}  # fmt: skip

ENUMS = {
    "DataType": ["TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8", "TYPE_INT16",
                 "TYPE_INT32", "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING", "TYPE_BF16"],
    "Kind": ["KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"],
}  # fmt: skip
"""Values in order, from 0; `Kind` is ModelInstanceGroup's."""

MESSAGES: dict[str, list[tuple[str, str, int]]] = {
    "ModelInput": [("name", "string", 1), ("data_type", "DataType", 2), ("dims", "int64*", 4)],
    "ModelOutput": [("name", "string", 1), ("data_type", "DataType", 2), ("dims", "int64*", 3), ("label_filename", "string", 4)],
    "ModelInstanceGroup": [("kind", "Kind", 4), ("count", "int32", 2), ("gpus", "int32*", 3)],
    "ModelDynamicBatching": [("preferred_batch_size", "int32*", 1), ("max_queue_delay_microseconds", "uint64", 2)],
    "ModelParameter": [("string_value", "string", 1)],
    "Input": [("data_type", "DataType", 1), ("dims", "int64*", 2), ("zero_data", "bool", 3)],
    "InputsEntry": [("key", "string", 1), ("value", "Input", 2)],
    "ModelWarmup": [("name", "string", 1), ("batch_size", "uint32", 2), ("inputs", "InputsEntry*", 3), ("count", "uint32", 4)],
    "ParametersEntry": [("key", "string", 1), ("value", "ModelParameter", 2)],
    "ModelConfig": [("name", "string", 1), ("backend", "string", 17), ("max_batch_size", "int32", 4), ("input", "ModelInput*", 5),
                    ("output", "ModelOutput*", 6), ("dynamic_batching", "ModelDynamicBatching", 11),
                    ("instance_group", "ModelInstanceGroup*", 7), ("parameters", "ParametersEntry*", 14),
                    ("model_warmup", "ModelWarmup*", 16)],
}  # fmt: skip
"""(name, type, number) of each field; ``*`` for a repeated one. `Input` is ModelWarmup's; an Entry is one of a map."""


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="tests/model_config.proto", package="tests", syntax="proto3")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, kind, number in fields:
            label = FIELD.LABEL_REPEATED if kind.endswith("*") else FIELD.LABEL_OPTIONAL
            kind = kind.rstrip("*")
            if kind in SCALARS:
                message.field.add(name=field, number=number, label=label, type=SCALARS[kind])
            else:
                type_ = FIELD.TYPE_ENUM if kind in ENUMS else FIELD.TYPE_MESSAGE
                message.field.add(name=field, number=number, label=label, type=type_, type_name=f".tests.{kind}")
    return file


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file())
ModelConfig: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("tests.ModelConfig"))
