//! Finds the tensors in what a pickle built, and names them by their path.

use core_view::safetensors::HEADER_LEN_MAX;

use super::value::{Arena, Id, Strided, Value};

/// How deep dictionaries and lists may lie in each other; what contains itself is deeper.
const DEPTH_MAX: usize = 32;
/// The most values that are visited: lists may be shared, and a few of them can make very many.
const VISITS_MAX: u64 = 2 << 20;
/// The longest key of a dictionary in bytes.
const KEY_LEN_MAX: usize = 4096;

/// A tensor with its name.
#[derive(Debug)]
pub(super) struct Named<'a> {
    pub(super) name: String,
    pub(super) tensor: &'a Strided,
}

/// The tensors of a checkpoint.
#[derive(Debug, Default)]
pub(super) struct Walked<'a> {
    pub(super) tensors: Vec<Named<'a>>,
    /// Values that are no tensors.
    pub(super) skipped_values: u64,
    visits: u64,
    name_bytes: u64,
}

/// All tensors below `root`; one that is alone is called `alone`.
pub(super) fn tensors<'a>(arena: &'a Arena, root: Id, alone: &str) -> Result<Walked<'a>, String> {
    let mut walked = Walked::default();
    let mut path = Vec::new();
    walked.visit(arena, root, &mut path)?;
    for named in &mut walked.tensors {
        if named.name.is_empty() {
            named.name = alone.to_owned();
        }
    }
    Ok(walked)
}

impl<'a> Walked<'a> {
    fn visit(&mut self, arena: &'a Arena, id: Id, path: &mut Vec<String>) -> Result<(), String> {
        self.visits += 1;
        if self.visits > VISITS_MAX || path.len() > DEPTH_MAX {
            return Err("its values lie too deep in each other, or are too many".into());
        }
        match arena.get(id) {
            Value::Tensor(tensor) => {
                let name = path.join(".");
                self.name_bytes += name.len() as u64;
                if self.name_bytes > HEADER_LEN_MAX {
                    return Err("the names of its tensors are too long".into());
                }
                self.tensors.push(Named { name, tensor });
            }
            Value::Unsupported(kind) => {
                let reason = kind.reason();
                return Err(format!("tensor {:?}: {reason}", path.join(".")));
            }
            Value::Dict(pairs) => {
                for (key, value) in pairs {
                    let key = match arena.get(*key) {
                        Value::Text(key) if key.len() <= KEY_LEN_MAX => key.to_string(),
                        Value::Int(key) => key.to_string(),
                        _ => {
                            return Err("a dictionary has a key that is no short text; \
                                        save the state_dict alone"
                                .into());
                        }
                    };
                    self.below(arena, *value, key, path)?;
                }
            }
            Value::List(items) | Value::Tuple(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.below(arena, *item, index.to_string(), path)?;
                }
            }
            _ => self.skipped_values += 1,
        }
        Ok(())
    }

    fn below(
        &mut self,
        arena: &'a Arena,
        id: Id,
        name: String,
        path: &mut Vec<String>,
    ) -> Result<(), String> {
        path.push(name);
        let visited = self.visit(arena, id, path);
        path.pop();
        visited
    }
}
