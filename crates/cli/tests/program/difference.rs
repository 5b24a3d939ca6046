//! Two models compared.

use core_view::DType;
use core_view::safetensors::HeaderBuilder;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::model::write;
use crate::process::weights;

/// A model of these tensors of floats.
fn model(tensors: &[(&str, &[f32])]) -> Vec<u8> {
    let builder = HeaderBuilder::new();
    let header = tensors
        .iter()
        .fold(builder, |builder, (name, numbers)| {
            builder.tensor(*name, DType::F32, &[numbers.len() as u64 / 2, 2])
        })
        .build()
        .unwrap();
    let data = tensors.iter().flat_map(|(_, numbers)| *numbers);
    let data: Vec<u8> = data.flat_map(|number| number.to_le_bytes()).collect();
    [header.raw(), &data].concat()
}

#[test]
fn each_tensor_and_layer_is_told() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let first = model(&[
        ("embed.weight", &[3.0, 4.0]),
        ("layers.0.up", &[1.0, 2.0, 3.0, 4.0]),
        ("layers.0.down", &[3.0, 0.0, 0.0, 4.0]),
        ("layers.1.up", &[1.0, 1.0]),
        ("old.head", &[1.0, 1.0]),
    ]);
    let second = model(&[
        ("embed.weight", &[3.0, 4.0, 7.0, 7.0]),
        ("layers.0.up", &[1.0, 2.0, 3.0, 4.0]),
        ("layers.0.down", &[3.0, 0.0, 0.5, 4.0]),
        ("layers.1.up", &[1.0, 1.0]),
        ("new.head", &[1.0, 1.0]),
    ]);
    for (name, bytes) in [("a", &first), ("b", &second)] {
        let path = write(folder.path(), name, bytes);
        weights("add", &store, &[&path]).done();
    }
    let page = folder.path().join("page.html");
    let answer = weights("diff", &store, &[&"a", &"b", &"--report", &page])
        .done()
        .json();
    let counts =
        ["same", "changed", "reshaped", "added", "removed"].map(|count| answer[count].clone());
    assert_eq!(counts, [2, 1, 1, 1, 1].map(|count| json!(count)));
    let tensor = |name: &str| -> Value {
        let tensors = answer["tensors"].as_array().unwrap();
        tensors
            .iter()
            .find(|tensor| tensor["tensor"] == name)
            .unwrap()
            .clone()
    };
    let down = tensor("layers.0.down");
    assert_eq!(down["change"], "changed");
    assert!((down["relative_change"].as_f64().unwrap() - 0.1).abs() < 1e-9);
    assert_eq!(down["changed_share"], 0.25);
    assert_eq!(tensor("embed.weight")["change"], "reshaped");
    assert_eq!(tensor("embed.weight")["relative_change"], 0.0);
    assert_eq!(tensor("new.head")["change"], "added");
    assert_eq!(tensor("old.head")["similarity"], Value::Null);
    let layers = answer["layers"].as_array().unwrap();
    let names: Vec<&str> = layers
        .iter()
        .map(|layer| layer["layer"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["embed", "layers.0", "layers.1", "new", "old"]);
    assert_eq!(layers[1]["changed_tensors"], 1);
    assert_eq!(layers[2]["similarity"], 1.0);
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("<svg") && html.contains("layers.0.down"));
    assert!(!html.contains("http://") || html.contains("http://www.w3.org/2000/svg"));
    weights("diff", &store, &[&"a", &"b", &"--report", &page]).failed_with("target_exists");
    let same = weights("diff", &store, &[&"a", &"a"]).done().json();
    assert_eq!((&same["same"], &same["changed"]), (&json!(5), &json!(0)));
    weights("diff", &store, &[&"a", &"c"]).failed_with("model_not_found");
}
