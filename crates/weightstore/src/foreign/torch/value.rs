//! What a pickle builds.

use std::rc::Rc;

use core_view::DType;

/// The number of a value in its arena.
pub(super) type Id = u32;

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElementType {
    Known(DType),
    /// One that safetensors lacks, by its name in `torch`.
    Lacking(&'static str),
}

impl ElementType {
    /// The unit that storages and strides are counted in: an element, or a byte of two of them.
    pub(super) fn width_bytes(self) -> Option<u64> {
        match self {
            Self::Known(DType::F4) => Some(1),
            Self::Known(dtype) => dtype.size_bytes().map(|width| width as u64),
            Self::Lacking(_) => None,
        }
    }
}

/// A tensor that can't be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsupported {
    Quantised,
    Sparse,
    Nested,
    Meta,
    /// Conjugated or negated when it is read.
    Flagged,
}

impl Unsupported {
    /// Why it can't, and what to do.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Quantised => {
                "it is quantised; save its dequantize(), or its int_repr() and scales"
            }
            Self::Sparse => "it is sparse; save its to_dense(), or its indices() and values()",
            Self::Nested => "it is a nested tensor; save its parts",
            Self::Meta => {
                "it is on the meta device and has no values; load the model before it is saved"
            }
            Self::Flagged => {
                "it is a view that is conjugated or negated when it is read; \
                 save its resolve_conj().resolve_neg()"
            }
        }
    }
}

/// A class or function that a pickle may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    /// A dictionary or set that is made of another one.
    Container,
    /// What makes or is a value that matters to nobody here.
    Plain,
    Size,
    RebuildTensor,
    RebuildTensorV3,
    RebuildParameter,
    RebuildParameterWithState,
    RebuildFromType,
    /// Makes a tensor that can't be imported.
    RebuildOther(Unsupported),
    /// A subclass of tensors that has nothing but the tensor.
    TensorClass,
    /// A class of storages, of elements of that type.
    Storage(ElementType),
    /// A class of storages of bytes.
    UntypedStorage,
    /// A type of elements.
    Type(ElementType),
}

/// A tensor as a pickle describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Strided {
    pub(super) dtype: ElementType,
    /// The key of its storage.
    pub(super) storage: Rc<str>,
    /// How many elements the storage is said to have, and of which type; of none it is bytes.
    pub(super) storage_elements: u64,
    pub(super) storage_dtype: Option<ElementType>,
    /// In elements.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    /// In elements.
    pub(super) strides: Vec<u64>,
}

/// A value of a pickle; containers hold the numbers of others.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing, a truth, a float, or another value that matters to nobody here.
    Opaque,
    Int(i64),
    Text(Rc<str>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage {
        /// The type of the elements; `None` for bytes of no type.
        dtype: Option<ElementType>,
        key: Rc<str>,
        elements: u64,
    },
    Tensor(Box<Strided>),
    Unsupported(Unsupported),
}

/// The values that a pickle has built.
#[derive(Debug, Default)]
pub(super) struct Arena(Vec<Value>);

/// The most dimensions that torch gives a tensor.
pub(super) const RANK_MAX: usize = 64;
/// The most values of a pickle: a tensor takes about fifteen.
const VALUES_MAX: usize = 4 << 20;

impl Arena {
    pub(super) fn add(&mut self, value: Value) -> Result<Id, String> {
        if self.0.len() >= VALUES_MAX {
            return Err(format!("its pickle builds more than {VALUES_MAX} values"));
        }
        self.0.push(value);
        Ok((self.0.len() - 1) as Id)
    }

    pub(super) fn get(&self, id: Id) -> &Value {
        self.0.get(id as usize).unwrap_or(&Value::Opaque)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Value> {
        self.0.get_mut(id as usize)
    }

    /// The elements of a tuple.
    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// A number that is not negative.
    pub(super) fn size(&self, id: Id) -> Option<u64> {
        match self.get(id) {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A tuple of such numbers, no more than a tensor has dimensions.
    pub(super) fn sizes(&self, id: Id) -> Option<Vec<u64>> {
        let items = self.tuple(id).filter(|items| items.len() <= RANK_MAX)?;
        items.iter().map(|item| self.size(*item)).collect()
    }
}
