//! What models hold, parsed once and looked up often.

use std::sync::{Arc, MutexGuard, PoisonError};

use core_view::safetensors::{Header, TensorInfo};

use super::core::Core;
use super::export::header_of;
use crate::record::Manifest;
use crate::{WeightError, WeightHash};

/// Tables that are kept at most.
const TABLES_MAX: usize = 16;
/// Tensors of kept tables at most, but for one table that alone has more: about half a KiB each.
const TENSORS_MAX: usize = 1 << 16;

/// A model's tensors by name and by hash.
#[derive(Debug)]
pub(super) struct ModelTable {
    pub(super) manifest: Manifest,
    /// Those of its files, in order.
    headers: Vec<Header>,
    by_name: Vec<Place>,
    by_root: Vec<Place>,
}

/// Where in a model a tensor is.
#[derive(Debug, Clone, Copy)]
struct Place {
    file: u32,
    tensor: u32,
}

impl ModelTable {
    fn new(model: &str, manifest: Manifest) -> Result<Self, WeightError> {
        let headers = manifest.files.iter().map(|file| header_of(model, file));
        let mut table = Self {
            headers: headers.collect::<Result<_, _>>()?,
            manifest,
            by_name: Vec::new(),
            by_root: Vec::new(),
        };
        let files = (0_u32..).zip(&table.headers);
        let mut places: Vec<Place> = files
            .flat_map(|(file, header)| {
                let tensors = (0_u32..).zip(header.tensors());
                tensors.map(move |(tensor, _)| Place { file, tensor })
            })
            .collect();
        // Sorts are stable: what is equal stays in the order of the files.
        places.sort_by(|a, b| table.name(*a).cmp(&table.name(*b)));
        table.by_name.clone_from(&places);
        places.sort_by_key(|place| (place.file, place.tensor));
        places.sort_by(|a, b| table.root(*a).cmp(&table.root(*b)));
        table.by_root = places;
        Ok(table)
    }

    fn info(&self, place: Place) -> Option<&TensorInfo> {
        let header = self.headers.get(place.file as usize)?;
        header.tensors().get(place.tensor as usize)
    }

    fn name(&self, place: Place) -> Option<&str> {
        self.info(place).map(|info| info.name.as_str())
    }

    fn root(&self, place: Place) -> Option<&WeightHash> {
        let file = self.manifest.files.get(place.file as usize)?;
        file.roots.get(place.tensor as usize)
    }

    /// The first tensor of that name.
    pub(super) fn tensor(&self, name: &str) -> Option<(&TensorInfo, &WeightHash)> {
        let at = self
            .by_name
            .partition_point(|place| self.name(*place) < Some(name));
        let place = *self.by_name.get(at)?;
        let found = self.info(place).filter(|info| info.name == name);
        found.zip(self.root(place))
    }

    /// The names that the model gives a tensor, in the order of its files.
    pub(super) fn names_of(&self, root: &WeightHash) -> impl Iterator<Item = &str> {
        let start = self
            .by_root
            .partition_point(|place| self.root(*place) < Some(root));
        let places = self.by_root.get(start..).unwrap_or_default();
        let same = places
            .iter()
            .take_while(move |place| self.root(**place) == Some(root));
        same.filter_map(|place| self.name(*place))
    }

    fn tensors(&self) -> usize {
        self.by_name.len()
    }
}

/// The tables that were asked for last, the newest at the end.
///
/// A table belongs to the name as the catalog holds it, which is another one, if of the same letters, after each
/// commit of the model: what was read before a model was replaced is never taken for the new one.
#[derive(Debug, Default)]
pub(super) struct ModelTables {
    kept: Vec<(Arc<str>, Arc<ModelTable>)>,
}

impl ModelTables {
    fn get(&mut self, name: &Arc<str>) -> Option<Arc<ModelTable>> {
        let same = |(kept, _): &(Arc<str>, _)| Arc::ptr_eq(kept, name);
        let at = self.kept.iter().position(same)?;
        let found = self.kept.remove(at);
        let table = Arc::clone(&found.1);
        self.kept.push(found);
        Some(table)
    }

    fn put(&mut self, name: Arc<str>, table: &Arc<ModelTable>) {
        // Of a name that was committed again the older table is of no use any more.
        self.kept.retain(|(kept, _)| *kept != name);
        self.kept.push((name, Arc::clone(table)));
        let tensors = |kept: &[(_, Arc<ModelTable>)]| -> usize {
            kept.iter().map(|(_, table)| table.tensors()).sum()
        };
        while self.kept.len() > 1
            && (self.kept.len() > TABLES_MAX || tensors(&self.kept) > TENSORS_MAX)
        {
            self.kept.remove(0);
        }
    }
}

impl Core {
    fn tables(&self) -> MutexGuard<'_, ModelTables> {
        let tables = self.model_tables.lock();
        tables.unwrap_or_else(PoisonError::into_inner)
    }

    /// What a model holds; its manifest is read and parsed unless that was done a short while ago.
    pub(super) fn model_table(&self, name: &str) -> Result<Arc<ModelTable>, WeightError> {
        let Some(committed) = self.catalog().models().get(name).cloned() else {
            return Err(WeightError::ModelNotFound {
                name: name.to_owned(),
            });
        };
        if let Some(table) = self.tables().get(&committed) {
            return Ok(table);
        }
        let table = Arc::new(ModelTable::new(name, self.manifest(name)?)?);
        self.tables().put(committed, &table);
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use core_view::DType;
    use core_view::safetensors::HeaderBuilder;

    use super::*;
    use crate::record::FileEntry;

    fn table(names: &[(&str, u8)]) -> ModelTable {
        let files = names.chunks(3).enumerate().map(|(index, names)| {
            let builder = names
                .iter()
                .fold(HeaderBuilder::new(), |header, (name, _)| {
                    header.tensor(*name, DType::U8, &[1])
                });
            let header = builder.build().unwrap();
            FileEntry {
                name: index.to_string(),
                len_bytes: header.data_start() + names.len() as u64,
                sha256: None,
                roots: names
                    .iter()
                    .map(|(_, root)| WeightHash::from_bytes([*root; 32]))
                    .collect(),
                header: header.raw().to_vec(),
            }
        });
        let files: Vec<FileEntry> = files.collect();
        let manifest = Manifest {
            content_hash: Manifest::hash_files(&files),
            files,
            index: String::new(),
            metadata: Vec::new(),
        };
        ModelTable::new("m", manifest).unwrap()
    }

    #[test]
    fn tensors_are_found_by_name_and_by_hash() {
        let table = table(&[("b", 1), ("a", 2), ("c", 1), ("d", 3), ("a", 4)]);
        let root = |name| table.tensor(name).map(|(_, root)| root.as_bytes()[0]);
        assert_eq!(
            ["a", "b", "c", "d", "e", ""].map(root),
            [Some(2), Some(1), Some(1), Some(3), None, None]
        );
        let names = |root| -> Vec<&str> {
            let root = WeightHash::from_bytes([root; 32]);
            table
                .names_of(&root)
                .map(|name| &*name.to_owned().leak())
                .collect()
        };
        assert_eq!(names(1), ["b", "c"]);
        assert_eq!((names(2), names(4)), (vec!["a"], vec!["a"]));
        assert!(names(0).is_empty() && names(5).is_empty());
    }

    #[test]
    fn few_tables_are_kept_and_none_of_an_older_commit() {
        let mut tables = ModelTables::default();
        let table = Arc::new(table(&[("a", 1)]));
        let names: Vec<Arc<str>> = (0..TABLES_MAX + 3).map(|i| i.to_string().into()).collect();
        for name in &names {
            tables.put(Arc::clone(name), &table);
        }
        assert_eq!(tables.kept.len(), TABLES_MAX);
        assert!(tables.get(&names[0]).is_none() && tables.get(&names[5]).is_some());
        let again: Arc<str> = (*names[5]).into();
        assert!(tables.get(&again).is_none());
        tables.put(Arc::clone(&again), &table);
        assert!(tables.get(&again).is_some() && tables.get(&names[5]).is_none());
    }
}
