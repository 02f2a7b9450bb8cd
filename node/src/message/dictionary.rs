//! What nodes say of the dictionary: requests that are routed to the responsible of a place, and what is said directly.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::RouteError;
use crate::id::{Id, Span};

/// The largest value that a key can have, in bytes.
pub const VALUE_BYTES_MAX: usize = 256 << 10;

/// The most items in one message.
pub const CHUNK_ITEMS_MAX: usize = 256;

/// A message takes no further item once its values have as many bytes together.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;

/// Which write of a key this is: the later one is the larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Rises with each write of the key.
    pub counter: u64,
    /// The node that gave the number: it was the key's responsible.
    pub node: Id,
}

/// A write, as its source knows it: a write that comes again is the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The node that wants it.
    pub node: Id,
    /// That node's incarnation.
    pub incarnation: u64,
    /// The number that the node gave it.
    pub sequence: u64,
}

/// What a key's last write made of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Item {
    /// The key.
    pub key: Id,
    /// The write's version.
    pub version: Version,
    /// Which write it was.
    pub origin: Origin,
    /// The value, at most [`VALUE_BYTES_MAX`] bytes; `None`: the key was removed.
    pub value: Option<Bytes>,
    /// For how long its sender has known it, in seconds: what was removed is forgotten one day.
    pub age_s: u32,
}

/// Where a part of the dictionary goes on: items are in the order of their places, then of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// The place.
    pub place: Id,
    /// The first key at that place.
    pub key: Id,
}

/// What is asked of the responsible of a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Request {
    /// Give the key, which is the place, this value; `None`: remove it. Answered by [`Talk::Written`].
    Write(Option<Bytes>),
    /// Which value has this key, one of whose places it is? Answered by [`Talk::Value`].
    Read(Id),
    /// Keep a copy in this place. Answered by [`Talk::Kept`].
    Keep(Item),
    /// Is a copy of this version, or of a later one, in this place? Answered by [`Talk::Kept`].
    Compare {
        /// The key.
        key: Id,
        /// The version that the asking node has.
        version: Version,
    },
    /// Tell the items of your places from this one and from this key on. Answered by [`Talk::Items`].
    Fetch {
        /// The first key.
        key: Id,
        /// The last place that is wanted.
        last: Id,
    },
}

/// What is said directly.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Talk {
    /// A write has ended.
    Written {
        /// The number of the request.
        sequence: u64,
        /// What became of it.
        result: Result<Written, Refusal>,
    },
    /// The value of a key.
    Value {
        /// The number of the request.
        sequence: u64,
        /// The value, if it has one.
        result: Result<Option<Stored>, Refusal>,
    },
    /// The copy is in its place, or is not.
    Kept {
        /// The number of the request.
        sequence: u64,
        /// Whether it is.
        result: Result<(), Refusal>,
    },
    /// Tell what you gave me: the sender has taken over, or taken back, a part of the receiver's range. Answered by
    /// [`Talk::Items`].
    Fetch {
        /// Repeated in the answer.
        token: u64,
        /// Where to begin.
        cursor: Cursor,
        /// The last place that is wanted.
        last: Id,
    },
    /// Items that were asked for.
    Items {
        /// The number of the request.
        token: u64,
        /// At most [`CHUNK_ITEMS_MAX`].
        items: Vec<Item>,
        /// Where the rest begins; `None`: there is no more up to the last place that was asked for.
        next: Option<Cursor>,
        /// Whether these are all that there are.
        holding: Holding,
    },
    /// The sender has all items of these places: the receiver, who gave them, needs to keep them no longer.
    Taken(Span),
}

/// Whether a node knows all items of some places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Holding {
    /// It does.
    Whole,
    /// It is being told them itself.
    Acquiring,
    /// They are not all places of its own, or that it gave: it tells what it has of them.
    Foreign,
}

/// Why the responsible of a place does not do what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// It does not know all items of the place yet, or answers for it no longer.
    NotReady,
    /// It has no room.
    Full,
    /// It has too much to do.
    Overloaded,
    /// It has a later version.
    Outdated(Version),
    /// It has no copy, or an older one.
    Missing,
    /// Not all copies are in their places.
    TooFewCopies {
        /// How many are.
        copies: u8,
        /// How many there should be.
        wanted: u8,
    },
}

/// A write that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Written {
    /// Its version.
    pub version: Version,
    /// How many different nodes have it: as many as the network's replication says, unless the ring is so small, or its nodes
    /// stand so unevenly, that several of the key's places are one node's.
    pub copies: u8,
}

/// A key's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stored {
    /// The value.
    pub value: Bytes,
    /// The version of the write that gave it.
    pub version: Version,
}

/// How an operation on the dictionary ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A key was given a value, or removed.
    Written(Written),
    /// A key's value, if it has one.
    Value(Option<Stored>),
}

/// Why an operation on the dictionary failed. A write that failed may have been done, or be done later, all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum DictionaryError {
    /// The key's responsible was not reached.
    #[error("the key's responsible was not reached: {0}")]
    Route(#[from] RouteError),
    /// The key's responsible has just become that, and was not told all items in time.
    #[error("the key's responsible does not know all of its items yet")]
    NotReady,
    /// A node that should have a copy has no room.
    #[error("a node that should have a copy of the item has no room")]
    Full,
    /// Not all copies were acknowledged in time.
    #[error("{copies} of {wanted} copies were acknowledged in time")]
    TooFewCopies {
        /// How many were.
        copies: u8,
        /// How many there should be.
        wanted: u8,
    },
    /// The value is larger than [`VALUE_BYTES_MAX`].
    #[error("the value has more than {VALUE_BYTES_MAX} bytes")]
    ValueTooLarge,
}

impl DictionaryError {
    /// The reason as the metrics and the results write it.
    pub fn as_str(self) -> &'static str {
        match self {
            DictionaryError::Route(reason) => reason.as_str(),
            DictionaryError::NotReady => "not_ready",
            DictionaryError::Full => "full",
            DictionaryError::TooFewCopies { .. } => "too_few_copies",
            DictionaryError::ValueTooLarge => "value_too_large",
        }
    }
}

impl From<Refusal> for DictionaryError {
    fn from(refusal: Refusal) -> DictionaryError {
        match refusal {
            Refusal::NotReady | Refusal::Outdated(_) | Refusal::Missing => DictionaryError::NotReady,
            Refusal::Full => DictionaryError::Full,
            Refusal::Overloaded => DictionaryError::Route(RouteError::Overloaded),
            Refusal::TooFewCopies { copies, wanted } => DictionaryError::TooFewCopies { copies, wanted },
        }
    }
}
