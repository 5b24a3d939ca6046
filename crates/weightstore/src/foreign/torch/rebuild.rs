//! What the functions and classes that a pickle names would build.

use std::rc::Rc;

use super::value::{Arena, ElementType, Global, Id, RANK_MAX, Strided, Unsupported, Value};

/// What calling a function or class makes.
pub(super) fn call(arena: &Arena, function: Id, arguments: Id) -> Result<Value, String> {
    let Value::Global(function) = arena.get(function) else {
        return Err("its pickle calls what is no function".into());
    };
    let arguments = arena.tuple(arguments).ok_or(ARGUMENTS)?;
    let made = match (function, arguments) {
        (Global::OrderedDict | Global::Container, []) => Some(Value::Dict(Vec::new())),
        (Global::Container, [content]) => contained(arena, *content),
        (Global::Plain, _) => Some(Value::Opaque),
        (Global::Size, [sizes]) => arena
            .tuple(*sizes)
            .filter(|sizes| sizes.len() <= RANK_MAX)
            .map(|sizes| Value::Tuple(sizes.to_vec())),
        (Global::RebuildTensor, [storage, offset, shape, strides, _, _, flags @ ..]) => {
            let tensor = tensor(arena, None, *storage, [*offset, *shape, *strides]);
            with_flags(arena, tensor, flags)
        }
        (Global::RebuildTensorV3, [storage, offset, shape, strides, _, _, dtype, flags @ ..]) => {
            let Value::Global(Global::Type(dtype)) = arena.get(*dtype) else {
                return Err(ARGUMENTS.into());
            };
            let tensor = tensor(arena, Some(*dtype), *storage, [*offset, *shape, *strides]);
            with_flags(arena, tensor, flags)
        }
        (Global::RebuildParameter, [tensor, _, _])
        | (Global::RebuildParameterWithState, [tensor, _, _, _]) => match arena.get(*tensor) {
            tensor @ (Value::Tensor(_) | Value::Unsupported(_)) => Some(tensor.clone()),
            _ => None,
        },
        (Global::RebuildFromType, [function, class, arguments, _]) => {
            match (arena.get(*function), arena.get(*class)) {
                (
                    Value::Global(
                        Global::RebuildTensor | Global::RebuildTensorV3 | Global::RebuildOther(_),
                    ),
                    Value::Global(Global::TensorClass),
                ) => return call(arena, *function, *arguments),
                _ => None,
            }
        }
        (Global::RebuildOther(kind), _) => Some(Value::Unsupported(*kind)),
        _ => None,
    };
    made.ok_or_else(|| ARGUMENTS.into())
}

/// A set, from the list of what it has; a dictionary of another class.
fn contained(arena: &Arena, content: Id) -> Option<Value> {
    match arena.get(content) {
        Value::List(items) | Value::Tuple(items) => Some(Value::Tuple(items.clone())),
        dictionary @ Value::Dict(_) => Some(dictionary.clone()),
        _ => None,
    }
}

/// A tensor that is changed when it is read is not what lies in its storage.
fn with_flags(arena: &Arena, tensor: Option<Value>, flags: &[Id]) -> Option<Value> {
    match flags {
        [] => tensor,
        [flags] => match arena.get(*flags) {
            Value::Dict(flags) if flags.is_empty() => tensor,
            Value::Dict(_) => Some(Value::Unsupported(Unsupported::Flagged)),
            _ => None,
        },
        _ => None,
    }
}

fn tensor(
    arena: &Arena,
    dtype: Option<ElementType>,
    storage: Id,
    [offset, shape, strides]: [Id; 3],
) -> Option<Value> {
    let Value::Storage {
        dtype: stored,
        key,
        elements,
    } = arena.get(storage)
    else {
        return None;
    };
    let tensor = Strided {
        dtype: dtype.or(*stored)?,
        storage: Rc::clone(key),
        storage_elements: *elements,
        storage_dtype: *stored,
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
        (Value::Text(kind), Value::Text(key), Some(elements)) if **kind == *"storage" => {
            Ok(Value::Storage {
                dtype,
                key: Rc::clone(key),
                elements,
            })
        }
        _ => Err(refused()),
    }
}

const ARGUMENTS: &str = "its pickle calls a function with other arguments than torch does; \
                         save the state_dict again with a current torch";
