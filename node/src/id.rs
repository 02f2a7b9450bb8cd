//! Identifiers and the arithmetic of the ring they live on.
//!
//! Ids and keys are integers in `0..max_size`; `max_size` is a setting of the whole network, from 2 to 2^64.
//! All arithmetic is modulo `max_size` and exact at 2^64, where the size itself does not fit a `u64`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place on the ring: the identifier of a node, or a key. In `0..max_size` of its [`Ring`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(pub u64);

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Id {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.trim().parse().map(Id)
    }
}

/// The ring `0..max_size` and its modular arithmetic.
///
/// # Examples
/// ```
/// use p2ps::id::{Id, Ring};
/// let ring: Ring = "2^64".parse()?;
/// assert_eq!(ring.add(Id(u64::MAX), 2), Id(1));
/// assert_eq!(ring.distance(Id(5), Id(3)), u64::MAX - 1);
/// # Ok::<(), p2ps::id::RingError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ring {
    /// `max_size - 1`: the largest id, which always fits.
    last: u64,
}

impl Ring {
    /// The default of P2PS: 2^32 ids.
    pub const DEFAULT: Ring = Ring { last: u32::MAX as u64 };

    /// A ring of `max_size` ids.
    ///
    /// # Errors
    /// [`RingError::Size`] unless `max_size` is in `2..=2^64`.
    pub fn new(max_size: u128) -> Result<Ring, RingError> {
        if (2..=1 << 64).contains(&max_size) {
            Ok(Ring { last: (max_size - 1) as u64 })
        } else {
            Err(RingError::Size(max_size))
        }
    }

    /// The number of ids on the ring, in `2..=2^64`.
    pub fn max_size(self) -> u128 {
        u128::from(self.last) + 1
    }

    /// The largest id of the ring, `max_size - 1`.
    pub fn last(self) -> Id {
        Id(self.last)
    }

    /// Whether `id` lies on this ring.
    pub fn contains(self, id: Id) -> bool {
        id.0 <= self.last
    }

    /// `id + offset`, modulo the ring's size.
    pub fn add(self, id: Id, offset: u64) -> Id {
        let (id, offset) = (self.reduced(id.0), self.reduced(offset));
        let room = self.last - id;
        Id(if offset <= room { id + offset } else { offset - room - 1 })
    }

    /// `id - offset`, modulo the ring's size.
    pub fn sub(self, id: Id, offset: u64) -> Id {
        let (id, offset) = (self.reduced(id.0), self.reduced(offset));
        Id(if offset <= id { id - offset } else { self.last - (offset - id) + 1 })
    }

    /// A number modulo the ring's size. Routing does this for every finger: a division only where there is something to divide.
    fn reduced(self, number: u64) -> u64 {
        if number <= self.last { number } else { number % (self.last + 1) }
    }

    /// The clockwise distance from `from` to `to`, in `0..max_size`.
    pub fn distance(self, from: Id, to: Id) -> u64 {
        if to.0 >= from.0 { to.0 - from.0 } else { self.last - from.0 + to.0 + 1 }
    }

    /// The shorter of the two distances between `a` and `b`.
    pub fn nearness(self, a: Id, b: Id) -> u64 {
        self.distance(a, b).min(self.distance(b, a))
    }

    /// Whether `id` is in `(after, upto]`, going clockwise. Where both ends are one id, the interval is the whole ring.
    pub fn in_range(self, id: Id, after: Id, upto: Id) -> bool {
        after == upto || (id != after && self.distance(after, id) <= self.distance(after, upto))
    }

    /// Whether `id` is strictly between: in `(after, before)`. Where both ends are one id: every id but that one.
    pub fn between(self, id: Id, after: Id, before: Id) -> bool {
        id != after && id != before && self.in_range(id, after, before)
    }
}

/// The ids of a ring from `first` to `last`, going clockwise, with both: 1 id to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    /// The first id.
    pub first: Id,
    /// The last id.
    pub last: Id,
}

impl Span {
    /// How far its last id is from its first: one less than the ids that it has.
    pub fn reach(self, ring: Ring) -> u64 {
        ring.distance(self.first, self.last)
    }

    /// Whether `id` is one of its ids.
    pub fn contains(self, ring: Ring, id: Id) -> bool {
        ring.distance(self.first, id) <= self.reach(ring)
    }

    /// Whether all of its ids are in `other`.
    pub fn is_within(self, ring: Ring, other: Span) -> bool {
        let begin = u128::from(ring.distance(other.first, self.first));
        begin + u128::from(self.reach(ring)) <= u128::from(other.reach(ring))
    }

    /// Whether the two have an id in common.
    pub fn overlaps(self, ring: Ring, other: Span) -> bool {
        self.contains(ring, other.first) || other.contains(ring, self.first)
    }
}

impl Default for Ring {
    fn default() -> Ring {
        Ring::DEFAULT
    }
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.max_size();
        if size.is_power_of_two() && size >= 1024 {
            write!(f, "2^{}", size.trailing_zeros())
        } else {
            write!(f, "{size}")
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring({self})")
    }
}

impl FromStr for Ring {
    type Err = RingError;

    /// Reads `4294967296` or `2^32`.
    fn from_str(text: &str) -> Result<Ring, RingError> {
        let unreadable = || RingError::Text(text.to_owned());
        let size = match text.trim().split_once('^') {
            Some((base, exponent)) => {
                let base: u128 = base.trim().parse().map_err(|_| unreadable())?;
                let exponent: u32 = exponent.trim().parse().map_err(|_| unreadable())?;
                base.checked_pow(exponent).ok_or_else(unreadable)?
            }
            None => text.trim().parse().map_err(|_| unreadable())?,
        };
        Ring::new(size)
    }
}

impl TryFrom<String> for Ring {
    type Error = RingError;

    fn try_from(text: String) -> Result<Ring, RingError> {
        text.parse()
    }
}

impl From<Ring> for String {
    fn from(ring: Ring) -> String {
        ring.to_string()
    }
}

/// Why a ring's size was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// The size is out of range.
    #[error("a ring has 2 to 2^64 ids, not {0}")]
    Size(u128),
    /// The text is no size.
    #[error("{0:?} is no ring size: write a number such as 65536, or a power such as 2^32")]
    Text(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings() -> [Ring; 4] {
        [2u128, 571, 1 << 32, 1 << 64].map(|size| Ring::new(size).unwrap())
    }

    #[test]
    fn add_and_sub_undo_each_other_on_every_ring() {
        for ring in rings() {
            for id in [Id(0), Id(1), ring.last()] {
                for offset in [0, 1, ring.last().0 / 2, ring.last().0] {
                    assert_eq!(ring.sub(ring.add(id, offset), offset), id, "{ring} {id} {offset}");
                    assert_eq!(ring.distance(id, ring.add(id, offset)), offset, "{ring} {id} {offset}");
                }
            }
        }
    }

    #[test]
    fn intervals_wrap_around_zero() {
        let ring = Ring::new(100).unwrap();
        assert!(ring.in_range(Id(5), Id(90), Id(10)));
        assert!(ring.in_range(Id(10), Id(90), Id(10)));
        assert!(!ring.in_range(Id(90), Id(90), Id(10)));
        assert!(ring.in_range(Id(42), Id(7), Id(7)), "one node answers for the whole ring");
        assert!(ring.in_range(Id(7), Id(7), Id(7)));
        assert!(!ring.between(Id(7), Id(7), Id(7)));
        assert!(ring.between(Id(8), Id(7), Id(7)));
    }

    #[test]
    fn spans_wrap_around_zero_and_may_be_the_whole_ring() {
        let ring = Ring::new(100).unwrap();
        let span = |first, last| Span { first: Id(first), last: Id(last) };
        assert!(span(90, 10).contains(ring, Id(5)) && span(90, 10).contains(ring, Id(90)));
        assert!(!span(90, 10).contains(ring, Id(11)));
        assert!(span(95, 3).is_within(ring, span(90, 10)) && !span(95, 11).is_within(ring, span(90, 10)));
        assert!(!span(89, 89).is_within(ring, span(90, 10)));
        let whole = span(43, 42);
        assert!((0..100).all(|id| whole.contains(ring, Id(id)) && span(id, id).is_within(ring, whole)));
        assert!(whole.is_within(ring, whole) && !whole.is_within(ring, span(42, 40)));
        assert!(span(90, 10).overlaps(ring, span(10, 20)) && span(10, 20).overlaps(ring, span(90, 10)));
        assert!(!span(90, 10).overlaps(ring, span(11, 89)));
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        assert_eq!(Ring::new(1), Err(RingError::Size(1)));
        assert_eq!("2^65".parse::<Ring>(), Err(RingError::Size(1 << 65)));
        assert!("2^128".parse::<Ring>().is_err());
        assert!("many".parse::<Ring>().is_err());
        assert_eq!("2^64".parse::<Ring>().unwrap().to_string(), "2^64");
    }
}
