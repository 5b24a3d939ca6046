//! Bytes that tell whose they are.

use super::Violation;
use crate::Storage;

/// Long and without a short period, so that a shift by a block or a page shows.
static TABLE: [u8; 65_521] = table();

const fn table() -> [u8; 65_521] {
    let mut table = [0; 65_521];
    let mut state = 1u64;
    let mut place = 0;
    while place < table.len() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        table[place] = (state >> 56) as u8;
        place += 1;
    }
    table
}

/// The pattern of `id`: the table, from a place that depends on the id, over and over.
fn pieces(id: u64) -> impl Iterator<Item = &'static [u8]> {
    let start = (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize % TABLE.len();
    let (head, tail) = TABLE.split_at(start);
    [tail, head].into_iter().cycle()
}

/// Fills a storage with the pattern of `id`, if the host can reach it.
pub(super) fn write<S: Storage>(storage: &mut S, id: u64) {
    let Some(host) = storage.as_host_mut() else {
        return;
    };
    let mut rest = host.as_mut_slice();
    for piece in pieces(id) {
        let len = piece.len().min(rest.len());
        let (now, later) = rest.split_at_mut(len);
        now.copy_from_slice(piece.split_at(len).0);
        rest = later;
        if rest.is_empty() {
            return;
        }
    }
}

/// Checks that a storage still has the pattern of `id`.
pub(super) fn check<S: Storage>(storage: &S, id: u64, rule: &'static str) -> Result<(), Violation> {
    compare(storage, pieces(id), rule)
}

/// Checks that all bytes have one value.
pub(super) fn check_value<S: Storage>(
    storage: &S,
    value: u8,
    rule: &'static str,
) -> Result<(), Violation> {
    let piece = vec![value; 65_536];
    compare(storage, std::iter::repeat(&piece[..]), rule)
}

fn compare<'a, S: Storage>(
    storage: &S,
    expected: impl Iterator<Item = &'a [u8]>,
    rule: &'static str,
) -> Result<(), Violation> {
    let Some(host) = storage.as_host() else {
        return Ok(());
    };
    let mut rest = host.as_slice();
    for piece in expected {
        if rest.is_empty() {
            break;
        }
        let len = piece.len().min(rest.len());
        let (now, later) = rest.split_at(len);
        let piece = piece.split_at(len).0;
        if now != piece {
            let before = storage.size() - rest.len();
            let wrong = now
                .iter()
                .zip(piece)
                .position(|(found, wanted)| found != wanted);
            return Err(Violation::new(
                rule,
                format!(
                    "byte {} of {} is not what it should be",
                    before + wrong.unwrap_or(0),
                    storage.size()
                ),
            ));
        }
        rest = later;
    }
    Ok(())
}
