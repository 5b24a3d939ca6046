//! `stepwell weights diff`.

mod picture;

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use weightstore::{
    ElementChange, LayerComparison, ModelComparison, TensorChange, TensorComparison,
};

use super::Location;
use crate::error::CliError;
use crate::report::Report;
use crate::table::{row, table};
use crate::target::Target;

/// What `weights diff` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
    /// Write a page with a picture of the layers, which needs nothing from elsewhere.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Replace the report that is there.
    #[arg(long, requires = "report")]
    force: bool,
    /// The first model.
    first: String,
    /// The second model.
    second: String,
}

/// What `weights diff` answers.
#[derive(Debug, Serialize)]
struct Difference {
    first: String,
    second: String,
    same: u64,
    changed: u64,
    reshaped: u64,
    added: u64,
    removed: u64,
    tensors: Vec<TensorDifference>,
    layers: Vec<LayerDifference>,
}

#[derive(Debug, Serialize)]
struct TensorDifference {
    tensor: String,
    dtype: String,
    shape: Vec<u64>,
    len_bytes: u64,
    change: &'static str,
    relative_change: Option<f64>,
    similarity: Option<f64>,
    changed_share: Option<f64>,
}

/// One layer of both models.
#[derive(Debug, Serialize)]
struct LayerDifference {
    layer: String,
    tensors: u64,
    changed_tensors: u64,
    relative_change: Option<f64>,
    similarity: Option<f64>,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    // The name is refused before anything is read.
    let page = arguments.report.as_deref();
    let page = page
        .map(|path| Target::open(path, arguments.force))
        .transpose()?;
    let store = arguments.location.open_for_reading()?;
    let progress = report.progress("diff");
    let on_progress = |done| progress.set(done);
    let comparison =
        store.compare_models(&arguments.first, &arguments.second, Some(&on_progress))?;
    drop(progress);
    let difference = Difference::new(arguments, comparison);
    report.answer(&difference, || difference.text())?;
    if let (Some(mut page), Some(path)) = (page, &arguments.report) {
        let text = picture::page(&difference)?;
        page.write_all(text.as_bytes())
            .map_err(|source| CliError::file("write", path, source))?;
        page.publish()?;
    }
    Ok(())
}

fn word(change: &TensorChange) -> (&'static str, Option<ElementChange>) {
    match change {
        TensorChange::Same => ("same", None),
        TensorChange::Changed(elements) => ("changed", *elements),
        TensorChange::Reshaped(elements) => ("reshaped", *elements),
        TensorChange::Added => ("added", None),
        TensorChange::Removed => ("removed", None),
        _ => ("unknown", None),
    }
}

impl TensorDifference {
    fn new(tensor: TensorComparison) -> Self {
        let (change, elements) = word(&tensor.change);
        Self {
            tensor: tensor.name,
            dtype: tensor.dtype.to_string(),
            shape: tensor.shape,
            len_bytes: tensor.len_bytes,
            change,
            relative_change: elements.map(|elements| elements.relative_change),
            similarity: elements.map(|elements| elements.similarity),
            changed_share: elements.map(|elements| elements.changed_share),
        }
    }
}

impl LayerDifference {
    fn new(layer: LayerComparison) -> Self {
        Self {
            layer: layer.layer,
            tensors: layer.tensors,
            changed_tensors: layer.changed_tensors,
            relative_change: layer.relative_change,
            similarity: layer.similarity,
        }
    }
}

impl Difference {
    fn new(arguments: &Arguments, comparison: ModelComparison) -> Self {
        let tensors: Vec<TensorDifference> = comparison
            .tensors
            .into_iter()
            .map(TensorDifference::new)
            .collect();
        let count = |change| {
            let counted = tensors.iter().filter(|tensor| tensor.change == change);
            counted.count() as u64
        };
        Self {
            first: arguments.first.clone(),
            second: arguments.second.clone(),
            same: count("same"),
            changed: count("changed"),
            reshaped: count("reshaped"),
            added: count("added"),
            removed: count("removed"),
            layers: comparison
                .layers
                .into_iter()
                .map(LayerDifference::new)
                .collect(),
            tensors,
        }
    }

    fn heading(&self) -> String {
        format!(
            "{} tensors the same, {} changed, {} reshaped, {} added, {} removed",
            self.same, self.changed, self.reshaped, self.added, self.removed
        )
    }

    fn layer_rows(&self) -> Vec<Vec<String>> {
        let head = row(["layer", "changed", "of", "relative change", "similarity"]);
        let rows = self.layers.iter().map(|layer| {
            vec![
                layer.layer.clone(),
                layer.changed_tensors.to_string(),
                layer.tensors.to_string(),
                change(layer.relative_change),
                likeness(layer.similarity),
            ]
        });
        std::iter::once(head).chain(rows).collect()
    }

    /// The tensors that are not the same.
    fn tensor_rows(&self) -> Vec<Vec<String>> {
        let head = row([
            "tensor",
            "dtype",
            "shape",
            "",
            "relative change",
            "similarity",
            "changed share",
        ]);
        let others = self.tensors.iter().filter(|tensor| tensor.change != "same");
        let rows = others.map(|tensor| {
            vec![
                tensor.tensor.clone(),
                tensor.dtype.clone(),
                format!("{:?}", tensor.shape),
                tensor.change.to_owned(),
                change(tensor.relative_change),
                likeness(tensor.similarity),
                change(tensor.changed_share),
            ]
        });
        std::iter::once(head).chain(rows).collect()
    }

    fn text(&self) -> String {
        let mut text = self.heading();
        let tensors = self.tensor_rows();
        if tensors.len() > 1 {
            text.push_str("\n\n");
            text.push_str(&table(&tensors, &[4, 5, 6]));
            text.push('\n');
            text.push_str(&table(&self.layer_rows(), &[1, 2, 3, 4]));
        }
        text
    }
}

fn change(share: Option<f64>) -> String {
    match share {
        None => String::new(),
        Some(0.0) => "0".to_owned(),
        Some(share) if (1e-3..1e4).contains(&share) => format!("{share:.4}"),
        Some(share) => format!("{share:.2e}"),
    }
}

fn likeness(similarity: Option<f64>) -> String {
    similarity.map_or_else(String::new, |similarity| {
        let text = format!("{similarity:.6}");
        // What is nearly nothing has no sign.
        let unsigned = text
            .strip_prefix('-')
            .filter(|text| text.bytes().all(|byte| matches!(byte, b'0' | b'.')));
        unsigned.map_or(text.clone(), str::to_owned)
    })
}
