//! Pieces of work.

/// What is done with values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// One durable batch is put.
    Put,
    /// Values that are there are got, so many at a time.
    Get,
}

/// Which values are got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// Any, no value twice in a turn.
    Random,
    /// In the order in which they were put.
    Sequential,
}

/// So many values of a size, put or got.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Work {
    /// A short name that does not change.
    pub id: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    /// What is done.
    pub action: Action,
    /// Length of a value in bytes.
    pub value_bytes: usize,
    /// Values of one turn.
    pub values: usize,
    /// Values under way at once.
    pub depth: usize,
    /// Values that are there to be got.
    pub stored_values: u64,
    /// Which of them are got.
    pub order: Order,
    /// The least ratio to the floor that is demanded of the store, where one is.
    pub ratio_min: Option<f64>,
}

const MIB: usize = 1 << 20;
const KIB_4: usize = 4 << 10;

impl Work {
    /// 64 values of 1 MiB in one durable batch.
    pub const PUT_1_MIB: Self = Self {
        id: "put-1m",
        title: "put 1 MiB, durable batches of 64",
        action: Action::Put,
        value_bytes: MIB,
        values: 64,
        depth: 32,
        stored_values: 0,
        order: Order::Sequential,
        ratio_min: Some(0.90),
    };

    /// 1024 values of 4 KiB in one durable batch.
    pub const PUT_4_KIB: Self = Self {
        id: "put-4k",
        title: "put 4 KiB, durable batches of 1024",
        value_bytes: KIB_4,
        values: 1024,
        ..Self::PUT_1_MIB
    };

    /// Values of 1 MiB, one at a time.
    pub const GET_1_MIB: Self = Self {
        id: "get-1m-1",
        title: "get 1 MiB, one at a time",
        action: Action::Get,
        value_bytes: MIB,
        values: 48,
        depth: 1,
        stored_values: 512,
        order: Order::Random,
        ratio_min: Some(0.90),
    };

    /// Values of 1 MiB, 8 at a time.
    pub const GET_1_MIB_BY_8: Self = Self {
        id: "get-1m-8",
        title: "get 1 MiB, 8 at a time",
        values: 96,
        depth: 8,
        ratio_min: Some(0.95),
        ..Self::GET_1_MIB
    };

    /// Values of 1 MiB in the order in which they were put, 8 at a time.
    pub const GET_IN_ORDER: Self = Self {
        id: "get-order",
        title: "sequential read: 1 MiB in order, 8 at a time",
        values: 96,
        depth: 8,
        order: Order::Sequential,
        ratio_min: None,
        ..Self::GET_1_MIB
    };

    /// Values of 4 KiB, one at a time.
    pub const GET_4_KIB: Self = Self {
        id: "get-4k-1",
        title: "get 4 KiB, one at a time",
        value_bytes: KIB_4,
        values: 512,
        stored_values: 64 << 10,
        ..Self::GET_1_MIB
    };

    /// Values of 4 KiB, 32 at a time.
    pub const GET_4_KIB_BY_32: Self = Self {
        id: "get-4k-32",
        title: "random read: 4 KiB, 32 at a time",
        values: 4096,
        depth: 32,
        ..Self::GET_4_KIB
    };

    /// All of them, in the order of a table.
    pub const ALL: [Self; 7] = [
        Self::PUT_1_MIB,
        Self::PUT_4_KIB,
        Self::GET_1_MIB,
        Self::GET_1_MIB_BY_8,
        Self::GET_IN_ORDER,
        Self::GET_4_KIB,
        Self::GET_4_KIB_BY_32,
    ];

    /// The same with a fraction of the values: `divisor` times fewer, at least one.
    #[must_use]
    pub fn reduced(&self, divisor: usize) -> Self {
        let divisor = divisor.max(1);
        let values = (self.values / divisor).max(1);
        Self {
            values,
            stored_values: match self.action {
                Action::Put => 0,
                Action::Get => (self.stored_values / divisor as u64).max(values as u64),
            },
            ..self.clone()
        }
    }

    /// Bytes of the values of one turn.
    pub fn turn_bytes(&self) -> u64 {
        self.value_bytes as u64 * self.values as u64
    }

    /// Bytes of the values that are there to be got.
    pub fn stored_bytes(&self) -> u64 {
        self.value_bytes as u64 * self.stored_values
    }

    /// The values that a turn gets; the same for everybody who takes it.
    pub fn picks(&self, turn: u64) -> Vec<u64> {
        let stored = self.stored_values.max(1);
        let first = turn.wrapping_mul(self.values as u64);
        match self.order {
            Order::Sequential => (0..self.values as u64)
                .map(|next| (first + next) % stored)
                .collect(),
            // A step that shares no factor with the number of values meets each of them once.
            Order::Random => {
                let step = coprime_step(stored, turn);
                let start = mix(turn) % stored;
                let mut picks: Vec<u64> = (0..(self.values as u64).min(stored))
                    .map(|next| {
                        let product = u128::from(next) * u128::from(step) + u128::from(start);
                        (product % u128::from(stored)) as u64
                    })
                    .collect();
                shuffle(&mut picks, turn);
                picks
            }
        }
    }
}

fn mix(seed: u64) -> u64 {
    let mut state = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

fn coprime_step(count: u64, seed: u64) -> u64 {
    let mut step = (mix(!seed) % count) | 1;
    while greatest_common_divisor(step, count) != 1 {
        step += 2;
    }
    step
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn shuffle(picks: &mut [u64], seed: u64) {
    for last in (1..picks.len()).rev() {
        let other = mix(seed ^ ((last as u64) << 20)) % (last as u64 + 1);
        picks.swap(last, other as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_gets_no_value_twice_and_turns_differ() {
        for work in Work::ALL.iter().filter(|work| work.action == Action::Get) {
            for divisor in [1, 7, 1000] {
                let work = work.reduced(divisor);
                let mut picks = work.picks(3);
                assert_eq!(picks, work.picks(3));
                assert!(work.values < 8 || picks != work.picks(4), "{}", work.id);
                assert!(picks.iter().all(|&pick| pick < work.stored_values));
                picks.sort_unstable();
                picks.dedup();
                assert_eq!(picks.len(), work.values, "{}", work.id);
            }
        }
    }
}
