//! The names that a pickle may use.

use core_view::DType;

use super::value::{ElementType, Global, Unsupported};

/// The classes of typed storages, by name, and their elements.
const STORAGES: [(&str, ElementType); 17] = [
    ("DoubleStorage", ElementType::Known(DType::F64)),
    ("FloatStorage", ElementType::Known(DType::F32)),
    ("HalfStorage", ElementType::Known(DType::F16)),
    ("BFloat16Storage", ElementType::Known(DType::BF16)),
    ("LongStorage", ElementType::Known(DType::I64)),
    ("IntStorage", ElementType::Known(DType::I32)),
    ("ShortStorage", ElementType::Known(DType::I16)),
    ("CharStorage", ElementType::Known(DType::I8)),
    ("ByteStorage", ElementType::Known(DType::U8)),
    ("BoolStorage", ElementType::Known(DType::Bool)),
    ("ComplexFloatStorage", ElementType::Known(DType::C64)),
    ("ComplexDoubleStorage", ElementType::Lacking("complex128")),
    ("QInt8Storage", ElementType::Lacking("qint8")),
    ("QUInt8Storage", ElementType::Lacking("quint8")),
    ("QInt32Storage", ElementType::Lacking("qint32")),
    ("QUInt4x2Storage", ElementType::Lacking("quint4x2")),
    ("QUInt2x4Storage", ElementType::Lacking("quint2x4")),
];

/// The types of elements by their names in `torch`, which safetensors has too.
const TYPES: [(&str, DType); 20] = [
    ("float64", DType::F64),
    ("float32", DType::F32),
    ("float16", DType::F16),
    ("bfloat16", DType::BF16),
    ("int64", DType::I64),
    ("int32", DType::I32),
    ("int16", DType::I16),
    ("int8", DType::I8),
    ("uint8", DType::U8),
    ("uint16", DType::U16),
    ("uint32", DType::U32),
    ("uint64", DType::U64),
    ("bool", DType::Bool),
    ("complex64", DType::C64),
    ("float8_e4m3fn", DType::F8E4M3),
    ("float8_e5m2", DType::F8E5M2),
    ("float8_e4m3fnuz", DType::F8E4M3Fnuz),
    ("float8_e5m2fnuz", DType::F8E5M2Fnuz),
    ("float8_e8m0fnu", DType::F8E8M0),
    // Two elements in a byte.
    ("float4_e2m1fn_x2", DType::F4),
];

/// The types of elements that safetensors lacks.
const TYPES_LACKING: [&str; 26] = [
    "complex32",
    "complex128",
    "qint8",
    "quint8",
    "qint32",
    "quint4x2",
    "quint2x4",
    "bits8",
    "bits16",
    "bits1x8",
    "bits2x4",
    "bits4x2",
    "int1",
    "int2",
    "int3",
    "int4",
    "int5",
    "int6",
    "int7",
    "uint1",
    "uint2",
    "uint3",
    "uint4",
    "uint5",
    "uint6",
    "uint7",
];

/// How the values of quantised tensors are scaled, and how the elements of others lie.
const CONSTANTS: [&str; 5] = [
    "per_tensor_affine",
    "per_tensor_symmetric",
    "per_channel_affine",
    "per_channel_symmetric",
    "per_channel_affine_float_qparams",
];

/// What a name stands for.
pub(super) fn global(module: &str, name: &str) -> Result<Global, String> {
    let found = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("collections", "Counter") | ("builtins" | "__builtin__", "set" | "frozenset") => {
            Some(Global::Container)
        }
        ("builtins" | "__builtin__", "bytearray" | "complex") | ("_codecs", "encode") => {
            Some(Global::Plain)
        }
        ("torch.serialization", "_get_layout") | ("torch", "device") => Some(Global::Plain),
        ("torch", "Size") => Some(Global::Size),
        ("torch._utils", function) => rebuild_function(function),
        ("torch._tensor", "_rebuild_from_type_v2") => Some(Global::RebuildFromType),
        ("torch", "Tensor") | ("torch.nn.parameter", "Parameter" | "Buffer") => {
            Some(Global::TensorClass)
        }
        ("torch" | "torch.storage", "UntypedStorage") => Some(Global::UntypedStorage),
        ("torch", _) => of_torch(name),
        _ => None,
    };
    found.ok_or_else(|| {
        let named: String = format!("{module}.{name}").chars().take(120).collect();
        format!(
            "its pickle names {named:?}, which no state_dict needs, and nothing in it is run; \
             save the state_dict alone"
        )
    })
}

fn rebuild_function(name: &str) -> Option<Global> {
    Some(match name {
        "_rebuild_tensor_v2" => Global::RebuildTensor,
        "_rebuild_tensor_v3" => Global::RebuildTensorV3,
        "_rebuild_parameter" => Global::RebuildParameter,
        "_rebuild_parameter_with_state" => Global::RebuildParameterWithState,
        "_rebuild_qtensor" => Global::RebuildOther(Unsupported::Quantised),
        "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" => {
            Global::RebuildOther(Unsupported::Sparse)
        }
        "_rebuild_nested_tensor" => Global::RebuildOther(Unsupported::Nested),
        "_rebuild_meta_tensor_no_storage" => Global::RebuildOther(Unsupported::Meta),
        _ => return None,
    })
}

fn of_torch(name: &str) -> Option<Global> {
    let storage = STORAGES.iter().find(|(known, _)| *known == name);
    let known = TYPES.iter().find(|(known, _)| *known == name);
    let lacking = TYPES_LACKING.iter().find(|known| **known == name);
    storage
        .map(|(_, element)| Global::Storage(*element))
        .or_else(|| known.map(|(_, dtype)| Global::Type(ElementType::Known(*dtype))))
        .or_else(|| lacking.map(|name| Global::Type(ElementType::Lacking(name))))
        .or_else(|| CONSTANTS.contains(&name).then_some(Global::Plain))
}
