//! One record of the packet log.

/// Bytes of a packet that a record keeps: the headers of IPv6 and ICMP, or of IPv4 and TCP.
pub const HEAD_BYTES: usize = 48;

/// Bytes of a record.
pub const RECORD_BYTES: usize = 104;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Fate {
    /// It was handed to the other host.
    Delivered = 0,
    /// Lost on the line, for itself.
    LostRandom = 1,
    /// Lost on the line, in a burst.
    LostBurst = 2,
    /// Dropped, since the queue before the line was full.
    DroppedQueue = 3,
    /// Dropped without a word, since it was longer than `silent-mtu`.
    DroppedSize = 4,
    /// Dropped, since the emulator held as many bytes as it may. No link asked for it: the
    /// lab was too small for the load.
    DroppedMemory = 5,
    /// The other host's interface did not take it, as when it is down.
    Refused = 6,
    /// The lab ended while it was on its way.
    Unfinished = 7,
    /// No packet, but a count, in the place of the sequence number, of those that the
    /// kernel dropped before the emulator saw them. Written when the lab ends.
    Unseen = 8,
    /// No packet, but a count, in the place of the sequence number, of those that are not
    /// in the log because it was full. Written when the lab ends.
    Unlogged = 9,
}

impl Fate {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Delivered,
        Self::LostRandom,
        Self::LostBurst,
        Self::DroppedQueue,
        Self::DroppedSize,
        Self::DroppedMemory,
        Self::Refused,
        Self::Unfinished,
        Self::Unseen,
        Self::Unlogged,
    ];

    /// Returns its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::LostRandom => "lost-random",
            Self::LostBurst => "lost-burst",
            Self::DroppedQueue => "dropped-queue",
            Self::DroppedSize => "dropped-size",
            Self::DroppedMemory => "dropped-memory",
            Self::Refused => "refused",
            Self::Unfinished => "unfinished",
            Self::Unseen => "unseen",
            Self::Unlogged => "unlogged",
        }
    }

    /// Returns whether the record stands for a packet, not for a count.
    pub const fn is_packet(self) -> bool {
        !matches!(self, Self::Unseen | Self::Unlogged)
    }
}

/// What became of one packet, or of one copy of it. All times are nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What became of it.
    pub fate: Fate,
    /// Whether it is the second copy of a packet. The first has a record of its own.
    pub is_copy: bool,
    /// Whether it was held back, for others to overtake.
    pub is_held: bool,
    /// Whether it went from the second host of the link to the first.
    pub is_back: bool,
    /// The number of the link, from 0.
    pub link: u16,
    /// The length of the IP packet in bytes.
    pub length: u32,
    /// The number of the packet in its direction, from 0, in the order of arrival.
    pub sequence: u64,
    /// When the emulator received it: monotonic.
    pub arrived_ns: u64,
    /// When the emulator received it: UTC, since 1970.
    pub arrived_utc_ns: u64,
    /// When it was to depart, if it was to: monotonic.
    pub intended_ns: Option<u64>,
    /// When it was handed to the other host, if it was: monotonic.
    pub departed_ns: Option<u64>,
    /// How much of `head` is of the packet.
    pub head_length: u8,
    /// Its first bytes, and zeros.
    pub head: [u8; HEAD_BYTES],
}

impl Record {
    /// Returns the first bytes of the packet.
    pub fn head(&self) -> &[u8] {
        self.head.get(..self.head_length.into()).unwrap_or(&self.head)
    }

    /// Returns how long the packet truly took through the link, in nanoseconds.
    pub fn delay_ns(&self) -> Option<u64> {
        self.departed_ns?.checked_sub(self.arrived_ns)
    }

    /// Returns how much later than intended it departed, in nanoseconds: the error of the
    /// emulator.
    pub fn lateness_ns(&self) -> Option<u64> {
        self.departed_ns?.checked_sub(self.intended_ns?)
    }

    /// Encodes it.
    pub(crate) fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let mut rest = bytes.as_mut_slice();
        let mut put = |value: &[u8]| {
            let (place, behind) =
                std::mem::take(&mut rest).split_at_mut_checked(value.len()).expect(FITS);
            place.copy_from_slice(value);
            rest = behind;
        };
        let flags = u8::from(self.is_copy)
            | u8::from(self.is_held) << 1
            | u8::from(self.is_back) << 2;
        put(&[self.fate as u8, flags]);
        put(&self.link.to_le_bytes());
        put(&self.length.to_le_bytes());
        put(&self.sequence.to_le_bytes());
        put(&self.arrived_ns.to_le_bytes());
        put(&self.arrived_utc_ns.to_le_bytes());
        put(&self.intended_ns.unwrap_or(0).to_le_bytes());
        put(&self.departed_ns.unwrap_or(0).to_le_bytes());
        put(&[self.head_length, 0, 0, 0, 0, 0, 0, 0]);
        put(&self.head);
        bytes
    }

    /// Decodes one. Returns nothing if the fate is not known or the head too long.
    pub(crate) fn decode(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        let mut rest = bytes.as_slice();
        let [fate, flags, l0, l1] = take(&mut rest)?;
        let length = u32::from_le_bytes(take(&mut rest)?);
        let mut number = || Some(u64::from_le_bytes(take(&mut rest)?));
        let sequence = number()?;
        let [arrived_ns, arrived_utc_ns, intended, departed] =
            [number()?, number()?, number()?, number()?];
        let [head_length, ..] = take::<8>(&mut rest)?;
        let head = take(&mut rest)?;
        Some(Self {
            fate: *Fate::ALL.get(usize::from(fate))?,
            is_copy: flags & 1 != 0,
            is_held: flags & 2 != 0,
            is_back: flags & 4 != 0,
            link: u16::from_le_bytes([l0, l1]),
            length,
            sequence,
            arrived_ns,
            arrived_utc_ns,
            intended_ns: Some(intended).filter(|time| *time != 0),
            departed_ns: Some(departed).filter(|time| *time != 0),
            head_length: Some(head_length)
                .filter(|length| usize::from(*length) <= HEAD_BYTES)?,
            head,
        })
    }
}

/// Why writing a field cannot fail.
const FITS: &str = "the fields of a record fit into it";

/// Takes the next bytes.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            fate in 0..Fate::ALL.len(),
            [is_copy, is_held, is_back] in prop::array::uniform3(any::<bool>()),
            link in any::<u16>(),
            length in any::<u32>(),
            [sequence, arrived_ns, arrived_utc_ns] in prop::array::uniform3(any::<u64>()),
            times in prop::array::uniform2(prop::option::of(1_u64..)),
            head_length in 0_u8..=48,
        ) {
            let record = Record {
                fate: Fate::ALL[fate],
                is_copy,
                is_held,
                is_back,
                link,
                length,
                sequence,
                arrived_ns,
                arrived_utc_ns,
                intended_ns: times[0],
                departed_ns: times[1],
                head_length,
                head: [7; HEAD_BYTES],
            };
            prop_assert_eq!(Record::decode(&record.encode()), Some(record));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), RECORD_BYTES)) {
            let bytes = <[u8; RECORD_BYTES]>::try_from(bytes).expect("as many");
            let record = Record::decode(&bytes);
            prop_assert_eq!(record.is_some(), bytes[0] < 10 && bytes[48] <= 48);
        }
    }

    #[test]
    fn the_numbers_of_fates_are_their_places() {
        for (fate, number) in Fate::ALL.into_iter().zip(0..) {
            assert_eq!(fate as u8, number);
        }
    }
}
