//! The names that a pickle may use, and what calling them builds.

use std::rc::Rc;

use core_view::DType;

use super::value::{Arena, Global, Id, RANK_MAX, Strided, Value};

/// The classes of typed storages, by name, and their elements.
const STORAGES: [(&str, DType); 11] = [
    ("DoubleStorage", DType::F64),
    ("FloatStorage", DType::F32),
    ("HalfStorage", DType::F16),
    ("BFloat16Storage", DType::BF16),
    ("LongStorage", DType::I64),
    ("IntStorage", DType::I32),
    ("ShortStorage", DType::I16),
    ("CharStorage", DType::I8),
    ("ByteStorage", DType::U8),
    ("BoolStorage", DType::Bool),
    ("ComplexFloatStorage", DType::C64),
];

/// The types of elements by their names in `torch`.
const TYPES: [(&str, DType); 19] = [
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
];

/// What a name stands for.
pub(super) fn global(module: &str, name: &str) -> Result<Global, String> {
    let of = |table: &[(&str, DType)]| {
        let row = table.iter().find(|(known, _)| *known == name);
        row.map(|(_, dtype)| *dtype)
    };
    let found = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch", "Size") => Some(Global::Size),
        ("torch", "device") => Some(Global::Device),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
        ("torch._utils", "_rebuild_tensor_v3") => Some(Global::RebuildTensorV3),
        ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
        ("torch._utils", "_rebuild_parameter_with_state") => {
            Some(Global::RebuildParameterWithState)
        }
        ("torch._tensor", "_rebuild_from_type_v2") => Some(Global::RebuildFromType),
        ("torch", "Tensor") | ("torch.nn.parameter", "Parameter" | "Buffer") => {
            Some(Global::TensorClass)
        }
        ("torch", "UntypedStorage") | ("torch.storage", "UntypedStorage") => {
            Some(Global::UntypedStorage)
        }
        ("torch", _) => of(&STORAGES)
            .map(Global::Storage)
            .or_else(|| of(&TYPES).map(Global::Type)),
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

/// What calling a function or class makes.
pub(super) fn call(arena: &Arena, function: Id, arguments: Id) -> Result<Value, String> {
    let Value::Global(function) = arena.get(function) else {
        return Err("its pickle calls what is no function".into());
    };
    let arguments = arena.tuple(arguments).ok_or(ARGUMENTS)?;
    let made = match (function, arguments) {
        (Global::OrderedDict, []) => Some(Value::Dict(Vec::new())),
        (Global::Size, [sizes]) => arena
            .tuple(*sizes)
            .filter(|sizes| sizes.len() <= RANK_MAX)
            .map(|sizes| Value::Tuple(sizes.to_vec())),
        (Global::Device, _) => Some(Value::Opaque),
        (Global::RebuildTensor, [storage, offset, shape, strides, _, _])
        | (Global::RebuildTensor, [storage, offset, shape, strides, _, _, _]) => {
            tensor(arena, None, *storage, [*offset, *shape, *strides])
        }
        (Global::RebuildTensorV3, [storage, offset, shape, strides, _, _, dtype])
        | (Global::RebuildTensorV3, [storage, offset, shape, strides, _, _, dtype, _]) => {
            match arena.get(*dtype) {
                Value::Global(Global::Type(dtype)) => {
                    tensor(arena, Some(*dtype), *storage, [*offset, *shape, *strides])
                }
                _ => None,
            }
        }
        (Global::RebuildParameter, [tensor, _, _])
        | (Global::RebuildParameterWithState, [tensor, _, _, _]) => match arena.get(*tensor) {
            Value::Tensor(tensor) => Some(Value::Tensor(tensor.clone())),
            _ => None,
        },
        (Global::RebuildFromType, [function, class, arguments, _]) => {
            match (arena.get(*function), arena.get(*class)) {
                (
                    Value::Global(Global::RebuildTensor | Global::RebuildTensorV3),
                    Value::Global(Global::TensorClass),
                ) => return call(arena, *function, *arguments),
                _ => None,
            }
        }
        _ => None,
    };
    made.ok_or_else(|| ARGUMENTS.into())
}

fn tensor(
    arena: &Arena,
    dtype: Option<DType>,
    storage: Id,
    [offset, shape, strides]: [Id; 3],
) -> Option<Value> {
    let Value::Storage {
        dtype: stored,
        key,
        len_bytes,
    } = arena.get(storage)
    else {
        return None;
    };
    let tensor = Strided {
        dtype: dtype.or(*stored)?,
        storage: Rc::clone(key),
        storage_len_bytes: *len_bytes,
        offset: arena.size(offset)?,
        shape: arena.sizes(shape)?,
        strides: arena.sizes(strides)?,
    };
    (tensor.shape.len() == tensor.strides.len()).then(|| Value::Tensor(Box::new(tensor)))
}

/// The storage that a persistent id names: `("storage", class, key, location, number of elements)`.
pub(super) fn storage(arena: &Arena, id: Id) -> Result<Value, String> {
    let refused = || "its pickle refers to what is no storage".to_owned();
    let Some(&[kind, class, key, _location, count]) = arena.tuple(id) else {
        return Err(refused());
    };
    let dtype = match arena.get(class) {
        Value::Global(Global::Storage(dtype)) => Some(*dtype),
        Value::Global(Global::UntypedStorage) => None,
        _ => return Err(refused()),
    };
    match (arena.get(kind), arena.get(key), arena.size(count)) {
        (Value::Text(kind), Value::Text(key), Some(count)) if **kind == *"storage" => {
            let width = dtype.map_or(1, |dtype| dtype.bits() as u64 / 8);
            Ok(Value::Storage {
                dtype,
                key: Rc::clone(key),
                len_bytes: count.checked_mul(width),
            })
        }
        _ => Err(refused()),
    }
}

const ARGUMENTS: &str = "its pickle calls a function with other arguments than torch does; \
                         save the state_dict again with a current torch";
