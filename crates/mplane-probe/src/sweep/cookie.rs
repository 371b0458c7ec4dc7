//! What marks the requests of a sweep: a number, and a proof that it is ours.
//!
//! | bytes | meaning |
//! |---|---|
//! | 0–7 | the cookie: a keyed hash of the mark |
//! | 8–11 | the target, by its place |
//! | 12 | the round |
//! | 13 | the attempt |
//! | 14–15 | 0 |
//!
//! Numbers are big-endian. Pure, but for drawing a key.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// Bytes of a written mark, and so of the shortest payload of a sweep.
pub const COOKIE_BYTES: usize = 16;

/// Which request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The target, by its place among the targets.
    pub target: u32,
    /// The how-manieth request to it, from 0.
    pub round: u8,
    /// The how-manieth attempt at this request, from 0.
    pub attempt: u8,
}

/// The secret of one sweep. `Debug` hides it.
///
/// The standard library's hash is a keyed pseudo-random function of 64 bits, and its keys
/// are random: who has seen the cookie of one request does not know those of others. So no
/// target can answer for another.
#[derive(Clone)]
pub struct CookieKey(RandomState);

impl CookieKey {
    /// Draws a new key.
    pub fn random() -> Self {
        Self(RandomState::new())
    }

    /// Returns a mark as it stands at the start of a payload.
    pub fn write(&self, mark: Mark) -> [u8; COOKIE_BYTES] {
        let mut bytes = [0; COOKIE_BYTES];
        let [cookie @ .., t0, t1, t2, t3, round, attempt, _, _] = &mut bytes;
        cookie.copy_from_slice(&self.0.hash_one(mark).to_be_bytes());
        [*t0, *t1, *t2, *t3] = mark.target.to_be_bytes();
        (*round, *attempt) = (mark.round, mark.attempt);
        bytes
    }

    /// Returns the mark at the start of a payload; `None` if it is none, or not ours.
    pub fn read(&self, payload: &[u8]) -> Option<Mark> {
        let bytes = payload.first_chunk::<COOKIE_BYTES>()?;
        let [.., t0, t1, t2, t3, round, attempt, _, _] = *bytes;
        let target = u32::from_be_bytes([t0, t1, t2, t3]);
        let mark = Mark { target, round, attempt };
        (self.write(mark) == *bytes).then_some(mark)
    }

    /// Returns whether a payload, possibly cut short, may bear a mark.
    pub fn fits_start_of(&self, mark: Mark, payload: &[u8]) -> bool {
        self.write(mark).iter().zip(payload).all(|(own, seen)| own == seen)
    }
}

impl fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_by_who_wrote_it_and_nobody_else() {
        let key = CookieKey::random();
        let mark = Mark { target: 65_535, round: 7, attempt: 2 };
        let mut payload = key.write(mark).to_vec();
        payload.extend(*b"filler");
        assert_eq!(key.read(&payload), Some(mark));
        assert_eq!(CookieKey::random().read(&payload), None);
        assert_eq!(key.read(&payload[..15]), None, "cut short");
        for at in 0..COOKIE_BYTES {
            let mut changed = payload.clone();
            changed[at] ^= 1;
            assert_eq!(key.read(&changed), None, "byte {at}");
        }
        assert!(key.fits_start_of(mark, &payload[..3]) && key.fits_start_of(mark, &[]));
        assert!(!key.fits_start_of(Mark { round: 8, ..mark }, &payload[..8]));
    }
}
