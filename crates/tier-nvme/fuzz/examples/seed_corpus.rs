//! Writes the inputs to begin with: `corpus/TARGET/seed-N` in the current directory.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    for target in tier_nvme::fuzzing::TARGETS {
        let directory = Path::new("corpus").join(target.name);
        std::fs::create_dir_all(&directory)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
