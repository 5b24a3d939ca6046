//! The floor: the same bytes with nothing around them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Action, BenchError, Contender, RawFile, Work, is_value, mark_value};

/// Bytes that one write of a batch has at most.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// Turns of puts after which the file begins anew.
const PUT_TURNS: u64 = 8;

/// Reads and writes a file past the page cache, as many pieces at once as the work says, and syncs it once
/// for each batch. Values of a batch lie side by side, so that small ones are written in pieces of 1 MiB.
#[derive(Debug)]
pub struct RawLoop {
    path: PathBuf,
    is_fresh: bool,
    /// The file of the work at hand.
    file: Option<(Work, RawFile)>,
    turn: u64,
}

impl RawLoop {
    /// Puts go where nothing was written since the space was reserved: the file system has to take note of
    /// each extent.
    ///
    /// # Errors
    /// None yet; the file is made with the first turn.
    pub fn fresh(directory: &Path) -> Result<Self, BenchError> {
        Ok(Self::new(directory.join("raw-fresh"), true))
    }

    /// Puts overwrite what was written before.
    ///
    /// # Errors
    /// None yet; the file is made with the first turn.
    pub fn overwriting(directory: &Path) -> Result<Self, BenchError> {
        Ok(Self::new(directory.join("raw-overwritten"), false))
    }

    fn new(path: PathBuf, is_fresh: bool) -> Self {
        Self {
            path,
            is_fresh,
            file: None,
            turn: 0,
        }
    }

    /// How the file is reached, once there is one.
    pub fn mode(&self) -> Option<&'static str> {
        self.file.as_ref().map(|(_, file)| file.mode())
    }

    /// Makes the file of a piece of work, with all values in it that are to be got.
    fn make(&self, work: &Work) -> io::Result<RawFile> {
        let len_bytes = match work.action {
            Action::Put => work.turn_bytes() * PUT_TURNS,
            Action::Get => work.stored_bytes(),
        };
        let filling_bytes = WRITE_BYTES_MAX.min(work.turn_bytes() as usize);
        if work.action == Action::Put {
            let mut file = RawFile::create(&self.path, len_bytes, filling_bytes, work.depth)?;
            if !self.is_fresh {
                file.write(&steps(0, len_bytes, filling_bytes), &|_, _| {})?;
                file.sync()?;
            }
            return Ok(file);
        }
        // Written by a file of its own, which takes larger pieces; reading does not truncate.
        let mut file = RawFile::create(&self.path, len_bytes, work.value_bytes, 32)?;
        file.write(&steps(0, len_bytes, work.value_bytes), &|place, value| {
            mark_value(value, place as u64);
        })?;
        file.sync()?;
        file.with_depth(work.depth)
    }
}

/// Offsets from `start` on, one for each piece.
fn steps(start: u64, len_bytes: u64, piece_bytes: usize) -> Vec<u64> {
    (start..start + len_bytes).step_by(piece_bytes).collect()
}

impl Contender for RawLoop {
    fn name(&self) -> String {
        match self.is_fresh {
            true => "raw loop, fresh extents".to_owned(),
            false => "raw loop, overwriting".to_owned(),
        }
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn prepare(&mut self, work: &Work, _turn: u64) -> Result<(), BenchError> {
        if self
            .file
            .as_ref()
            .is_none_or(|(made_for, _)| made_for != work)
        {
            self.file = None;
            self.file = Some((work.clone(), self.make(work)?));
            self.turn = 0;
        }
        if let Some((_, file)) = &mut self.file
            && work.action == Action::Put
        {
            if self.is_fresh && self.turn == PUT_TURNS {
                file.reserve()?;
            }
            self.turn %= PUT_TURNS;
        }
        Ok(())
    }

    fn run(&mut self, work: &Work, turn: u64) -> Result<(), BenchError> {
        let Some((_, file)) = &mut self.file else {
            return Err("the raw loop was not prepared".into());
        };
        match work.action {
            Action::Put => {
                let bytes = work.turn_bytes();
                let offsets = steps(self.turn * bytes, bytes, file.piece_bytes());
                file.write(&offsets, &|_, _| {})?;
                file.sync()?;
                self.turn += 1;
            }
            Action::Get => {
                let picks = work.picks(turn);
                let offsets: Vec<u64> = picks
                    .iter()
                    .map(|pick| pick * work.value_bytes as u64)
                    .collect();
                let is_wrong = AtomicBool::new(false);
                file.read(&offsets, &|place, value| {
                    let wanted = picks.get(place).copied();
                    if !wanted.is_some_and(|number| is_value(value, number)) {
                        is_wrong.store(true, Ordering::Relaxed);
                    }
                })?;
                if is_wrong.into_inner() {
                    return Err("the raw loop read something else than it wrote".into());
                }
            }
        }
        Ok(())
    }
}
