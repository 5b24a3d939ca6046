//! The attributes of a dataset.

use std::collections::HashMap;

use hdf5_pure::{AttrValue, Dataset};

use super::library::{call, unusable};
use crate::WeightError;

/// Most dimensions that HDF5 has.
pub(super) const RANK_MAX: usize = 32;

/// The attributes of one dataset, as Coral writes them.
pub(super) struct Attributes<'a> {
    file: &'a str,
    dataset: &'a str,
    values: HashMap<String, AttrValue>,
}

impl<'a> Attributes<'a> {
    pub(super) fn read(
        file: &'a str,
        name: &'a str,
        dataset: &Dataset,
    ) -> Result<Self, WeightError> {
        Ok(Self {
            file,
            dataset: name,
            values: call(file, &format!("the attributes of {name}"), || {
                dataset.attrs()
            })?,
        })
    }

    fn wrong(&self, attribute: &str, expected: &str) -> WeightError {
        let dataset = self.dataset;
        unusable(
            self.file,
            format!("the attribute {attribute:?} of {dataset} is not {expected}"),
        )
    }

    /// A text; `None` if the attribute is absent.
    pub(super) fn text(&self, attribute: &str) -> Result<Option<&str>, WeightError> {
        match self.values.get(attribute) {
            None => Ok(None),
            Some(value) => match value.as_str() {
                Some(text) => Ok(Some(text)),
                None => Err(self.wrong(attribute, "a text")),
            },
        }
    }

    /// A text that has to be there.
    pub(super) fn required_text(&self, attribute: &str) -> Result<&str, WeightError> {
        self.text(attribute)?
            .ok_or_else(|| self.wrong(attribute, "there"))
    }

    /// A list of dimensions. numpy knows no type for the elements of an empty tuple and makes them floats.
    pub(super) fn shape(&self, attribute: &str) -> Result<Vec<u64>, WeightError> {
        let value = self
            .values
            .get(attribute)
            .ok_or_else(|| self.wrong(attribute, "there"))?;
        if value.to_f64s().is_some_and(|none| none.is_empty()) {
            return Ok(Vec::new());
        }
        value
            .to_u64s()
            .filter(|shape| shape.len() <= RANK_MAX)
            .ok_or_else(|| self.wrong(attribute, "a list of at most 32 dimensions"))
    }

    /// A number; `None` if the attribute is absent.
    pub(super) fn number(&self, attribute: &str) -> Result<Option<f64>, WeightError> {
        match self.values.get(attribute) {
            None => Ok(None),
            Some(value) => value
                .as_f64()
                .or_else(|| value.as_i64().map(|number| number as f64))
                .map(Some)
                .ok_or_else(|| self.wrong(attribute, "a number")),
        }
    }
}
