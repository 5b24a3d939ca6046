//! Ages, in steps that grow with them.

/// Four steps for each doubling: ages up to 2^19 requests are told apart.
pub(super) const STEPS: usize = 72;

/// The step of an age in requests.
#[inline]
pub(super) fn step(age: u32) -> usize {
    if age < 4 {
        return age as usize;
    }
    let octave = age.ilog2();
    let quarter = (age >> (octave - 2)) & 3;
    ((4 * (octave - 1) + quarter) as usize).min(STEPS - 1)
}

/// The least age of a step.
pub(super) const fn start(step: usize) -> u32 {
    if step < 4 {
        return step as u32;
    }
    let (octave, quarter) = (step / 4 + 1, step % 4);
    (4 + quarter as u32) << (octave - 2)
}

/// How many ages a step has; the last one counts as much as all before it.
pub(super) const fn width(step: usize) -> u32 {
    if step + 1 < STEPS {
        start(step + 1) - start(step)
    } else {
        start(step)
    }
}

/// Requests from one to a later one; none if it is not later, for requests overlap.
#[inline]
pub(super) fn between(tick: u32, later: u32) -> u32 {
    later
        .wrapping_sub(tick)
        .cast_signed()
        .max(0)
        .cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_begins_where_the_one_before_ended() {
        assert_eq!(step(0), 0);
        for number in 1..STEPS {
            assert_eq!(step(start(number)), number);
            assert_eq!(step(start(number) - 1), number - 1);
        }
        assert_eq!(step(u32::MAX), STEPS - 1);
    }
}
