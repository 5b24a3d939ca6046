//! The inputs to begin with.

use std::path::Path;

/// Writes those of a target into the directory of inputs that the fuzzer was given: the first argument that is no
/// option.
pub fn write(target: &str) {
    let Some(corpus) = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
    else {
        return;
    };
    // A single input may be given as well, to be run again.
    if !Path::new(&corpus).is_dir() {
        return;
    }
    let targets = tier_nvme::fuzzing::TARGETS.iter();
    let inputs = targets
        .filter(|known| known.name == target)
        .flat_map(|known| (known.seeds)());
    for (number, input) in inputs.enumerate() {
        std::fs::write(Path::new(&corpus).join(format!("seed-{number}")), input).unwrap();
    }
}
