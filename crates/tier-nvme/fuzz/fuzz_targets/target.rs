//! A target, and the inputs that it begins with.

use std::path::Path;

/// The fuzz target `$name` of `tier_nvme::fuzzing`, which begins with its own inputs.
macro_rules! target {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(init: crate::target::write_seeds($name), |bytes: &[u8]| {
            tier_nvme::fuzzing::run($name, bytes)
        });
    };
}

/// Writes the first inputs of a target into the directory of inputs that the fuzzer was given: the first argument that is no
/// option.
pub fn write_seeds(target: &str) {
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
