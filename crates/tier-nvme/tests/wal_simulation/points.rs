//! A short life of a log, with the power failing at each of its operations in turn, and once more during
//! the recovery from that.

use tier_nvme::sim::{SimVolume, Survival};
use tier_nvme::{Lsn, NvmeError};

use super::model::Life;

const FILE_BYTES: u64 = 24 << 10;

/// What survives the power loss, and the seed that decides where that leaves a choice.
const SURVIVALS: [(Survival, u64); 8] = [
    (Survival::Nothing, 0),
    (Survival::Everything, 0),
    (Survival::ByWrite, 1),
    (Survival::ByWrite, 2),
    (Survival::BySector, 1),
    (Survival::BySector, 2),
    (Survival::BySector, 3),
    (Survival::BySector, 4),
];

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

/// Lives until the power fails at operation `at`; `None` if the life ends before.
fn until_power_fails(at: u64, survival: Survival, seed: u64) -> Option<Life> {
    let mut life = Life::new(SimVolume::new(seed), FILE_BYTES);
    life.volume.fail_power_after(at);
    let ended = WORKLOAD
        .into_iter()
        .try_for_each(|next| step(&mut life, next));
    if life.volume.operations() <= at {
        ended.unwrap();
        return None;
    }
    // What was acknowledged before the power failed counts.
    drop(life.collect());
    life.volume.crash_keeping(survival);
    life.forget();
    Some(life)
}

/// Opens the disk, compares, loses the power again, compares, and goes on.
fn check(life: &Life, volume: &SimVolume, what: &str) {
    let mut after = Life::new(volume.clone(), FILE_BYTES);
    after.expected = life.expected.clone();
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

/// The power fails again, at each operation of the recovery.
fn check_recoveries(life: &Life, what: &str) -> u64 {
    for at in 0.. {
        for (survival, seed) in [(Survival::Nothing, 0), (Survival::BySector, at)] {
            let volume = life.volume.fork(seed);
            volume.fail_power_after(at);
            let before = volume.operations();
            let mut opening = Life::new(volume.clone(), FILE_BYTES);
            let opened = opening.try_open(&volume);
            if volume.operations() - before <= at {
                opened.unwrap();
                return at;
            }
            volume.crash_keeping(survival);
            opening.forget();
            check(
                life,
                &volume,
                &format!("{what}, recovery at {at} {survival:?}"),
            );
        }
    }
    0
}

#[test]
fn the_power_may_fail_at_every_operation_and_in_every_recovery() {
    let (mut points, mut recoveries) = (0, 0);
    for at in 0.. {
        let mut has_ended = false;
        for (survival, seed) in SURVIVALS {
            let Some(life) = until_power_fails(at, survival, seed) else {
                has_ended = true;
                break;
            };
            let what = format!("operation {at} {survival:?} {seed}");
            check(&life, &life.volume.fork(seed), &what);
            if seed < 2 {
                recoveries += check_recoveries(&life, &what);
            }
        }
        if has_ended {
            break;
        }
        points += 1;
    }
    println!("{points} operations, {recoveries} operations of recoveries");
    assert!(points > 80 && recoveries > 4 * points);
}
