use super::*;

struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn normal(&mut self) -> f32 {
        let sum: u64 = (0..12).map(|_| self.next() >> 40).sum();
        sum as f32 / (1 << 24) as f32 - 6.0
    }
}

const ROWS: usize = 200;
const COLUMNS: usize = 96;
const SHAPE: [u64; 2] = [ROWS as u64, COLUMNS as u64];

fn weights(seed: u64) -> Vec<f32> {
    let mut numbers = Numbers(seed);
    (0..ROWS * COLUMNS)
        .map(|_| numbers.normal() * 0.02)
        .collect()
}

fn sketch(weights: &[f32]) -> Sketch {
    let bytes: Vec<u8> = weights.iter().flat_map(|x| x.to_le_bytes()).collect();
    Sketch::of(DType::F32, &SHAPE, &bytes).unwrap()
}

/// All weights changed by noise of that size, relative to theirs.
fn noisy(weights: &[f32], relative: f32, seed: u64) -> Vec<f32> {
    let mut numbers = Numbers(seed);
    weights
        .iter()
        .map(|x| x + numbers.normal() * 0.02 * relative)
        .collect()
}

#[test]
fn the_change_is_estimated_over_five_decades() {
    let base = weights(1);
    let of_base = sketch(&base);
    for relative in [1e-1_f32, 3e-2, 1e-2] {
        let likeness = of_base
            .likeness(&sketch(&noisy(&base, relative, 2)))
            .unwrap();
        let share = likeness.relative_change / f64::from(relative);
        assert!((0.8..1.25).contains(&share), "{relative}: {likeness:?}");
    }
    // Below a sketch's own rounding all that is told is that little changed.
    for relative in [1e-3_f32, 1e-4, 0.0] {
        let likeness = of_base
            .likeness(&sketch(&noisy(&base, relative, 2)))
            .unwrap();
        assert!(likeness.relative_change < 5e-3, "{relative}: {likeness:?}");
        assert!(likeness.is_promising());
    }
    let unrelated = of_base.likeness(&sketch(&weights(3))).unwrap();
    assert!(
        (1.2..1.6).contains(&unrelated.relative_change),
        "{unrelated:?}"
    );
    assert!(!unrelated.is_promising(), "{unrelated:?}");
}

#[test]
fn each_family_finds_its_base() {
    let bases: Vec<Vec<f32>> = (1..=20).map(weights).collect();
    let mut index = SketchIndex::default();
    for (number, base) in bases.iter().enumerate() {
        index.insert(number, sketch(base));
    }
    let mut numbers = Numbers(99);
    for (number, base) in bases.iter().enumerate() {
        let (left, right): (Vec<f32>, Vec<f32>) = (
            (0..ROWS).map(|_| numbers.normal() * 0.05).collect(),
            (0..COLUMNS).map(|_| numbers.normal() * 0.05).collect(),
        );
        let low_rank: Vec<f32> = (base.iter().enumerate())
            .map(|(i, x)| x + left[i / COLUMNS] * right[i % COLUMNS])
            .collect();
        let mut rows_replaced = base.clone();
        rows_replaced[..ROWS * COLUMNS / 3].copy_from_slice(&weights(50)[..ROWS * COLUMNS / 3]);
        let scaled: Vec<f32> = base.iter().map(|x| x * 1.05).collect();
        for (family, tuned) in [
            ("noise", noisy(base, 1e-3, 7)),
            ("low rank", low_rank),
            ("rows replaced", rows_replaced),
            ("scaled", scaled),
        ] {
            let nearest = index.nearest(&sketch(&tuned));
            assert_eq!(nearest.map(|found| *found.0), Some(number), "{family}");
        }
    }
    assert!(
        index.nearest(&sketch(&weights(77))).is_none(),
        "a stranger has no base"
    );
    assert!(index.remove(&3, &sketch(&bases[3])));
    assert!(!index.remove(&3, &sketch(&bases[3])));
    assert!(index.nearest(&sketch(&bases[3])).is_none());
}

#[test]
fn a_tensor_that_grew_is_like_what_it_was() {
    let mut grown = weights(1);
    grown.extend(&weights(2)[..10 * COLUMNS]);
    let bytes: Vec<u8> = grown.iter().flat_map(|x| x.to_le_bytes()).collect();
    let grown = Sketch::of(DType::F32, &[ROWS as u64 + 10, COLUMNS as u64], &bytes).unwrap();
    let likeness = grown.likeness(&sketch(&weights(1))).unwrap();
    assert_eq!(likeness.relative_change, 0.0);
    assert_eq!(likeness.kept_share, 1.0);
    let reshaped = Sketch::of(DType::F32, &[bytes.len() as u64 / 4], &bytes).unwrap();
    assert_eq!(grown.likeness(&reshaped), None);
}

#[test]
fn every_type_has_a_sketch_that_can_be_stored() {
    let mut numbers = Numbers(5);
    let bytes: Vec<u8> = (0..1 << 16).map(|_| numbers.next() as u8).collect();
    for dtype in DType::all() {
        let sketch = Sketch::of(dtype, &[1 << 10], &bytes).unwrap();
        let stored = sketch.to_bytes();
        assert_eq!(Sketch::from_bytes(&stored).unwrap(), sketch);
        assert_eq!(sketch.likeness(&sketch).unwrap().kept_share, 1.0, "{dtype}");
        for len in 0..stored.len() {
            assert!(Sketch::from_bytes(&stored[..len]).is_err());
        }
        assert!(Sketch::from_bytes(&[&stored[..], &[0]].concat()).is_err());
    }
    assert_eq!(Sketch::of(DType::U8, &[100], &bytes[..100]), None);
    let mut newer = Sketch::of(DType::U8, &[1], &bytes).unwrap().to_bytes();
    newer[4] = 2;
    assert!(matches!(
        Sketch::from_bytes(&newer),
        Err(WeightError::Newer { .. })
    ));
}

#[test]
fn numbers_are_rounded_to_what_they_are() {
    for (dtype, bits, wanted) in [
        (DType::BF16, 0x3FC0_u64, 1.5),
        (DType::F16, 0xC500, -5.0 * 32768.0),
        (DType::I8, 0xFF, -1.0),
        (DType::I32, 0xFFFF_FFFE, -2.0),
        (DType::U16, 0xFFFF, 65535.0),
        (DType::F64, 1.25_f64.to_bits(), 1.25),
        (DType::F32, u64::from(f32::NAN.to_bits()), 0.0),
    ] {
        let width = dtype.size_bytes().unwrap();
        assert_eq!(
            value(dtype, &bits.to_le_bytes()[..width]),
            wanted,
            "{dtype}"
        );
    }
    assert_eq!(
        widened(rounded(f64::MAX)),
        f64::from(f32::from_bits(0x7F7F_0000))
    );
    assert_eq!(widened(rounded(-1.5)), -1.5);
}
