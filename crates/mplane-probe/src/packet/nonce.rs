//! The secret of one run, carried in the payload of its requests.
//!
//! Source: none; RFC 792 and RFC 4443 leave the data of an echo request to the
//! sender and require that it comes back unchanged.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Length of a [`Nonce`] in bytes, and so of the shortest payload.
///
/// 64 bits cannot be guessed within the life of an echo request.
pub const NONCE_BYTES: usize = 8;

/// Random bytes that only the requests of one run carry.
///
/// A reply that carries them has seen a request: who merely guesses the identifier
/// and the sequence number cannot forge one. `Debug` hides the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Nonce([u8; NONCE_BYTES]);

impl Nonce {
    /// Draws a new nonce.
    ///
    /// The standard library's hash keys are random bytes of the operating system
    /// and never repeat; hashing with such a key is a keyed pseudo-random function,
    /// which suffices here and spares a dependency on a random number generator.
    pub fn random() -> Self {
        Self(RandomState::new().build_hasher().finish().to_be_bytes())
    }

    /// Returns a nonce of chosen bytes, for runs that must repeat exactly.
    pub const fn from_bytes(bytes: [u8; NONCE_BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes as they stand at the start of a payload.
    pub const fn as_bytes(&self) -> &[u8; NONCE_BYTES] {
        &self.0
    }

    /// Returns whether `payload`, possibly cut short, may stem from this nonce.
    ///
    /// A quotation in an ICMP error may end before or within the nonce; then only
    /// the bytes present are compared.
    pub fn fits_start_of(&self, payload: &[u8]) -> bool {
        self.0.iter().zip(payload).all(|(own, seen)| own == seen)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(..)")
    }
}
