//! A short life of a log, with the power failing at each of its operations in turn, and once more during
//! the recovery from that.

use tier_nvme::sim::{SURVIVALS, SimVolume, Survival, Workload, fail_power_everywhere};
use tier_nvme::{Lsn, NvmeError};

use super::model::Life;

const FILE_BYTES: u64 = 24 << 10;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A record of so many bytes, and the wait for it.
    Append(usize),
    /// Two groups that share a sync, one of them a batch.
    Share(usize),
    /// A record that is on its way when the next step comes.
    Send(usize),
    Truncate,
    Close,
    Kill,
}

use Step::{Append, Close, Kill, Send, Share, Truncate};

/// Files are begun, used again and removed; each way to end is followed by opening.
const WORKLOAD: [Step; 20] = [
    Append(100),
    Share(300),
    Append(9000),
    Share(2000),
    Kill,
    Append(9000),
    Truncate,
    Share(5000),
    Close,
    Append(6000),
    Send(50),
    Kill,
    Share(6000),
    Truncate,
    Append(7000),
    Send(9000),
    Close,
    Append(0),
    Truncate,
    Share(1000),
];

fn payload(life: &Life, len: usize) -> Vec<u8> {
    vec![life.expected.records.len() as u8 + 1; len]
}

fn step(life: &mut Life, step: Step) -> Result<(), NvmeError> {
    let volume = life.volume.clone();
    life.try_open(&volume)?;
    match step {
        Append(len) => {
            life.send(vec![payload(life, len)])?;
            life.finish()
        }
        Share(len) => {
            life.send(vec![payload(life, len)])?;
            life.wal().step(true);
            let batch = vec![payload(life, len / 2), payload(life, len / 2 + 1)];
            life.send(batch)?;
            life.wal().step(true);
            life.finish()
        }
        Send(len) => {
            life.send(vec![payload(life, len)])?;
            life.wal().step(true);
            life.collect()
        }
        Truncate => {
            life.expected.floor = life.wal().durable_lsn().get();
            let lsn = Lsn::new(life.expected.floor);
            life.wal().truncate_before(lsn).map(drop)
        }
        Close => {
            let closed = life.wal().close();
            let collected = life.collect();
            life.forget();
            closed.and(collected)
        }
        Kill => {
            life.volume.kill();
            settle_after(life)
        }
    }
}

fn settle_after(life: &mut Life) -> Result<(), NvmeError> {
    life.forget();
    let volume = life.volume.clone();
    life.try_open(&volume)?;
    life.settle("after a kill")
}

impl Workload for Life {
    type Opened = Life;
    type Error = NvmeError;

    fn run(&mut self) -> Result<(), NvmeError> {
        let ended = WORKLOAD.into_iter().try_for_each(|next| step(self, next));
        // What was acknowledged before the power failed counts.
        let collected = self.collect();
        ended.and(collected)
    }

    fn forget(&mut self) {
        Life::forget(self);
    }

    fn open(&self, volume: &SimVolume) -> Result<Life, NvmeError> {
        let mut opening = Life::new(volume.clone(), FILE_BYTES);
        opening.try_open(volume).map(|()| opening)
    }

    /// Opens the disk, compares, loses the power again, compares, and goes on.
    fn check(&self, volume: &SimVolume, what: &str) {
        let mut after = Life::new(volume.clone(), FILE_BYTES);
        after.expected = self.expected.clone();
        let open = |after: &mut Life| {
            after
                .try_open(volume)
                .and_then(|()| after.settle(what))
                .unwrap_or_else(|error| panic!("{what}: {error:?}"));
        };
        open(&mut after);
        // What was served once must stay.
        volume.crash_keeping(Survival::Nothing);
        after.forget();
        open(&mut after);
        for len in [10, 9000, 9000] {
            after.send(vec![payload(&after, len)]).unwrap();
            after.finish().unwrap();
        }
        after.wal().close().unwrap();
        after.forget();
        open(&mut after);
        assert!(after.wal().recovery_report().clean, "{what}");
    }
}

#[test]
fn the_power_may_fail_at_every_operation_and_in_every_recovery() {
    let begin = |volume| Life::new(volume, FILE_BYTES);
    let failures = fail_power_everywhere(&SURVIVALS, begin, |_, seed| seed < 2).unwrap();
    println!("{failures:?}");
    assert!(failures.points > 80 && failures.recoveries > 4 * failures.points);
}
