//! The key of a network: who has it may join and read, nobody else.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rand::TryRng;
use rand::rngs::SysRng;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The length of a key, in bytes.
pub const KEY_BYTES: usize = 32;

/// The length of a key as text, in hexadecimal digits.
pub const KEY_DIGITS: usize = 2 * KEY_BYTES;

/// A secret that all nodes of a network share. As text it is [`KEY_DIGITS`] hexadecimal digits (`openssl rand -hex 32` makes
/// one too).
///
/// It is shown by nothing but [`NetworkKey::reveal`] and its serialised form, which are for the standard input of who is to
/// have it. Clones share one place in memory, which is wiped when the last one is dropped; comparison takes the same time for
/// any two keys.
#[derive(Clone)]
pub struct NetworkKey(Arc<Zeroizing<[u8; KEY_BYTES]>>);

impl NetworkKey {
    /// A fresh key, from the system's randomness.
    ///
    /// # Errors
    /// [`NetworkKeyError::NoRandomness`].
    pub fn random() -> Result<NetworkKey, NetworkKeyError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        let drawn = SysRng.try_fill_bytes(bytes.as_mut_slice());
        drawn.map_err(|error| NetworkKeyError::NoRandomness(error.to_string()))?;
        Ok(NetworkKey(Arc::new(bytes)))
    }

    /// The key as text, wiped when it is dropped.
    pub fn reveal(&self) -> Zeroizing<String> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = Zeroizing::new(String::with_capacity(KEY_DIGITS));
        for byte in self.0.iter() {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl FromStr for NetworkKey {
    type Err = NetworkKeyError;

    fn from_str(text: &str) -> Result<NetworkKey, NetworkKeyError> {
        let characters = text.chars().count();
        if characters != KEY_DIGITS {
            return Err(NetworkKeyError::Length(characters));
        }
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        for (place, character) in text.chars().enumerate() {
            let digit = character.to_digit(16).ok_or(NetworkKeyError::NoDigit { place: place + 1 })?;
            bytes[place / 2] = bytes[place / 2] << 4 | digit as u8;
        }
        Ok(NetworkKey(Arc::new(bytes)))
    }
}

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkKey(secret)")
    }
}

impl PartialEq for NetworkKey {
    fn eq(&self, other: &NetworkKey) -> bool {
        self.bytes().ct_eq(other.bytes()).into()
    }
}

impl Eq for NetworkKey {}

impl Serialize for NetworkKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.reveal())
    }
}

impl<'de> Deserialize<'de> for NetworkKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NetworkKey, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        text.parse().map_err(D::Error::custom)
    }
}

/// Why there is no key. It tells nothing of what was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkKeyError {
    /// The text is too short or too long.
    #[error(
        "a network key is {KEY_DIGITS} hexadecimal digits, not {0} characters: p2ps-node new-key makes one"
    )]
    Length(usize),
    /// A character is none of 0 to 9 and a to f.
    #[error("a network key is {KEY_DIGITS} hexadecimal digits: character {place} is none")]
    NoDigit {
        /// Its place, counted from 1.
        place: usize,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    NoRandomness(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text_and_nothing_else_shows_it() {
        let key = NetworkKey::random().unwrap();
        let text = key.reveal();
        assert_eq!(text.len(), KEY_DIGITS);
        assert_eq!(text.parse::<NetworkKey>().unwrap(), key);
        assert_eq!(text.to_uppercase().parse::<NetworkKey>().unwrap(), key);
        assert_eq!(serde_json::from_str::<NetworkKey>(&serde_json::to_string(&key).unwrap()).unwrap(), key);
        assert_eq!(format!("{key:?} {:?}", Some(&key)), "NetworkKey(secret) Some(NetworkKey(secret))");
        assert_ne!(NetworkKey::random().unwrap(), key);
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let digits = "0123456789abcdef".repeat(4);
        assert!(digits.parse::<NetworkKey>().is_ok());
        for (text, error) in [
            (&digits[1..], NetworkKeyError::Length(63)),
            ("", NetworkKeyError::Length(0)),
            (&format!("{digits}0"), NetworkKeyError::Length(65)),
            (&digits.replace("5", "g"), NetworkKeyError::NoDigit { place: 6 }),
            (&digits.replace("f", "ß"), NetworkKeyError::NoDigit { place: 16 }),
        ] {
            assert_eq!(text.parse::<NetworkKey>().unwrap_err(), error);
            let error = serde_json::from_value::<NetworkKey>(text.into()).unwrap_err().to_string();
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
    }
}
