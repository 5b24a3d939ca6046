//! fio at the same reads and writes, where it is installed.

use std::io;
use std::path::Path;
use std::process::Command;

use tier_nvme::bench::BenchError;

/// A job: what it is called, and fio's words for it.
const JOBS: [(&str, &[&str]); 4] = [
    (
        "write 1 MiB, 32 at a time, a sync after 64",
        &["--rw=write", "--bs=1m", "--iodepth=32", "--fdatasync=64"],
    ),
    (
        "read 1 MiB, 8 at a time",
        &["--rw=randread", "--bs=1m", "--iodepth=8"],
    ),
    (
        "read 4 KiB, one at a time",
        &["--rw=randread", "--bs=4k", "--iodepth=1"],
    ),
    (
        "read 4 KiB, 32 at a time",
        &["--rw=randread", "--bs=4k", "--iodepth=32"],
    ),
];

/// Prints what fio says of each job; it does not take turns with the others.
pub(crate) fn run(folder: &Path) -> Result<(), BenchError> {
    match Command::new("fio").arg("--version").output() {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("fio: skipped: it is not installed");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    }
    println!("fio, by itself:");
    for (name, words) in JOBS {
        let output = Command::new("fio")
            .args(["--name=job", "--ioengine=io_uring", "--direct=1"])
            .args(["--size=512m", "--runtime=3", "--time_based", "--minimal"])
            .args(words)
            .arg(format!("--directory={}", folder.display()))
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let fields: Vec<&str> = text.trim().split(';').collect();
        // Fields 7 and 48 of the terse format are kilobytes a second, 8 and 49 operations a second.
        let place = if words.contains(&"--rw=write") { 47 } else { 6 };
        let number = |place: usize| {
            fields
                .get(place)
                .and_then(|field| field.parse::<f64>().ok())
        };
        match (number(place), number(place + 1)) {
            (Some(kib_per_s), Some(operations_per_s)) => println!(
                "  {name:<45} {:>8.0} MB/s {operations_per_s:>10.0}/s",
                kib_per_s * 1024.0 / 1e6
            ),
            _ => println!(
                "  {name}: no result: {}",
                String::from_utf8_lossy(&output.stderr)
                    .lines()
                    .next()
                    .unwrap_or("")
            ),
        }
    }
    Ok(())
}
