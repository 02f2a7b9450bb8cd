//! Typed messages: any serde value can be a message, as any Oz value could be one in P2PS.
//!
//! A value travels in postcard's form, which is compact and does not describe itself: both ends must agree on the type. What
//! is to change over time should be an `enum` whose variants are only ever added at the end.
//!
//! # Examples
//! ```
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! enum Note {
//!     Post { id: u64, text: String },
//!     Withdraw { id: u64 },
//! }
//!
//! let note = Note::Post { id: 7, text: "meet at noon".to_owned() };
//! let payload = p2ps::typed::encode(&note)?;
//! assert_eq!(p2ps::typed::decode::<Note>(&payload)?, note);
//! # Ok::<(), p2ps::typed::TypedError>(())
//! ```
//! `node.broadcast(encode(&note)?)` sends it; [`Message::value`](crate::node::Message::value) reads it.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::PAYLOAD_BYTES_MAX;
use crate::peer::Delivery;

/// A value as a message's payload.
///
/// # Errors
/// [`TypedError::Encode`] for a value that serde or postcard cannot write (a sequence of unknown length, say);
/// [`TypedError::TooLarge`] for one with more than [`PAYLOAD_BYTES_MAX`] bytes.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, TypedError> {
    let bytes = postcard::to_allocvec(value).map_err(TypedError::Encode)?;
    if bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(TypedError::TooLarge { bytes: bytes.len() });
    }
    Ok(bytes.into())
}

/// The value that a payload holds: all of it.
///
/// # Errors
/// [`TypedError::Decode`] where the payload is no `T`; [`TypedError::Trailing`] where it goes on behind it.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, TypedError> {
    let (value, rest) = postcard::take_from_bytes(payload).map_err(TypedError::Decode)?;
    if rest.is_empty() { Ok(value) } else { Err(TypedError::Trailing { bytes: rest.len() }) }
}

impl Delivery {
    /// The value that the message holds.
    ///
    /// # Errors
    /// As [`decode`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # use p2ps::{config::NetConfig, id::Id, node::{Node, NodeConfig}};
    /// # let (first, mut messages, _) = Node::create_net(NetConfig::default(), NodeConfig::default()).await?;
    /// # let (second, ..) = Node::join_net(&[first.access_point()], NodeConfig::default(), None).await?;
    /// second.send(first.id(), p2ps::typed::encode(&("temperature", 21.5))?)?;
    /// let message = messages.next().await.expect("the node runs");
    /// assert_eq!(message.value::<(String, f64)>()?, ("temperature".to_owned(), 21.5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })
    /// # }
    /// ```
    pub fn value<T: DeserializeOwned>(&self) -> Result<T, TypedError> {
        decode(&self.payload)
    }
}

/// Why a value is no payload, or a payload no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypedError {
    /// The value cannot be written.
    #[error("the value cannot be a message: {0}")]
    Encode(#[source] postcard::Error),
    /// The value is too large for one message.
    #[error("the value takes {bytes} bytes, a message has at most {PAYLOAD_BYTES_MAX}")]
    TooLarge {
        /// Its size, in bytes.
        bytes: usize,
    },
    /// The payload holds no such value.
    #[error("the message is no value of the expected type: {0}")]
    Decode(#[source] postcard::Error),
    /// The payload goes on behind the value.
    #[error("{bytes} bytes follow the value: the sender's type is another one")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_whole_and_another_type_is_told() {
        let value = (7_u64, vec!["a".to_owned(), "b".to_owned()], Some(1.5_f64));
        let payload = encode(&value).unwrap();
        assert_eq!(decode::<(u64, Vec<String>, Option<f64>)>(&payload), Ok(value));
        assert!(matches!(decode::<u64>(&payload), Err(TypedError::Trailing { .. })));
        assert!(matches!(decode::<(u64, Vec<String>, String)>(&payload[..3]), Err(TypedError::Decode(_))));
        let large = vec![0_u8; PAYLOAD_BYTES_MAX];
        assert!(matches!(encode(&large), Err(TypedError::TooLarge { .. })));
    }

    #[test]
    fn a_length_that_is_a_lie_allocates_nothing() {
        // A vector that claims 2^60 entries.
        let lie = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(matches!(decode::<Vec<u64>>(&lie), Err(TypedError::Decode(_))));
    }
}
