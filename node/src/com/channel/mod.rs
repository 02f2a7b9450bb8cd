//! Sealed links: what two nodes of a network with a key say to each other, encrypted and authenticated.
//!
//! The channel is Noise's (revision 34, <https://noiseprotocol.org/noise.html>), `NNpsk0`: each link has two ephemeral keys,
//! and the network's key is mixed in before the first of them.
//!
//! - *psk0, not psk2*: the first message already proves the key. A stranger is turned away for a hash and a tag, before any
//!   Diffie-Hellman and before any word of ours.
//! - *NN*: nodes have no keys of their own, so there are none to distribute. All members are equally trusted.
//! - Both openings are without content. All that is said is behind them, under keys that both ends have proven to have and that
//!   are gone with the link: who learns the network's key later cannot read what was recorded, and no recorded byte is of use
//!   on another link.
//!
//! Behind the openings, each way is a stream of bytes cut into *records*: the length of the sealed bytes (`u16`, little
//! endian), and those bytes with their tag. A record holds whatever waited when it was written, often several frames, or a
//! piece of a large one. Records are numbered by both ends, so none can be left out, repeated or swapped. Each way takes a new
//! key after every [`RECORDS_PER_KEY`] records; the old one cannot be had from it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use snow::{Builder, HandshakeState, TransportState};

use super::key::NetworkKey;

/// The Noise protocol. It is part of what both ends hash: another one is another network.
const PROTOCOL: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

/// The length of an ephemeral public key, in bytes.
const EPHEMERAL_BYTES: usize = 32;

/// The length of an authentication tag, in bytes.
pub const TAG_BYTES: usize = 16;

/// The length prefix of a record, in bytes.
pub const RECORD_PREFIX_BYTES: usize = 2;

/// The most sealed bytes of a record: Noise allows no more.
pub const RECORD_BYTES_MAX: usize = u16::MAX as usize;

/// How many records are sealed under one key. Neither its bytes nor their number wear a key out so soon: what is sealed
/// already stays secret if a node's memory is read later.
pub const RECORDS_PER_KEY: u64 = 1 << 16;

/// A Noise handshake message without content: an ephemeral public key, and the tag that proves the network's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    ephemeral: [u8; EPHEMERAL_BYTES],
    tag: [u8; TAG_BYTES],
}

/// The dialling side, between its opening and the other's.
pub struct Dialling(Box<HandshakeState>);

impl Dialling {
    /// Begins a channel; `prologue` is what both ends have said in the open, or know of it.
    ///
    /// # Errors
    /// [`ChannelError::Unavailable`].
    pub fn begin(key: &NetworkKey, prologue: &[u8]) -> Result<(Dialling, Opening), ChannelError> {
        let builder = builder(key, prologue).map_err(ChannelError::Unavailable)?;
        let mut state = builder.build_initiator().map_err(ChannelError::Unavailable)?;
        let opening = write_opening(&mut state)?;
        Ok((Dialling(Box::new(state)), opening))
    }

    /// Takes the other end's opening.
    ///
    /// # Errors
    /// [`ChannelError::Altered`]: it does not answer this one's.
    pub fn finish(mut self, opening: &Opening) -> Result<Channel, ChannelError> {
        read_opening(&mut self.0, opening)?;
        Channel::new(*self.0)
    }
}

/// The dialled side: takes the other end's opening, and answers it.
///
/// # Errors
/// [`ChannelError::Altered`]: it was made with another key or prologue. [`ChannelError::Unavailable`].
pub fn accept(
    key: &NetworkKey,
    prologue: &[u8],
    opening: &Opening,
) -> Result<(Opening, Channel), ChannelError> {
    let builder = builder(key, prologue).map_err(ChannelError::Unavailable)?;
    let mut state = builder.build_responder().map_err(ChannelError::Unavailable)?;
    read_opening(&mut state, opening)?;
    let answer = write_opening(&mut state)?;
    Ok((answer, Channel::new(state)?))
}

fn builder<'a>(key: &'a NetworkKey, prologue: &'a [u8]) -> Result<Builder<'a>, snow::Error> {
    Builder::new(PROTOCOL.parse()?).prologue(prologue)?.psk(0, key.bytes())
}

fn write_opening(state: &mut HandshakeState) -> Result<Opening, ChannelError> {
    let mut bytes = [0; EPHEMERAL_BYTES + TAG_BYTES];
    state.write_message(&[], &mut bytes).map_err(ChannelError::Unavailable)?;
    let (mut ephemeral, mut tag) = ([0; EPHEMERAL_BYTES], [0; TAG_BYTES]);
    ephemeral.copy_from_slice(&bytes[..EPHEMERAL_BYTES]);
    tag.copy_from_slice(&bytes[EPHEMERAL_BYTES..]);
    Ok(Opening { ephemeral, tag })
}

fn read_opening(state: &mut HandshakeState, opening: &Opening) -> Result<(), ChannelError> {
    let mut bytes = [0; EPHEMERAL_BYTES + TAG_BYTES];
    bytes[..EPHEMERAL_BYTES].copy_from_slice(&opening.ephemeral);
    bytes[EPHEMERAL_BYTES..].copy_from_slice(&opening.tag);
    state.read_message(&bytes, &mut []).map_err(|_| ChannelError::Altered)?;
    Ok(())
}

/// A link's channel, both ways.
#[derive(Debug)]
pub struct Channel {
    /// Seals what this node says.
    pub sealer: Sealer,
    /// Opens what the other says.
    pub opener: Opener,
}

impl Channel {
    fn new(state: HandshakeState) -> Result<Channel, ChannelError> {
        let shared =
            Shared(Arc::new(Mutex::new(state.into_transport_mode().map_err(ChannelError::Unavailable)?)));
        Ok(Channel { sealer: Sealer(shared.clone()), opener: Opener { shared, partial: Vec::new() } })
    }
}

/// Both ways' keys: Noise's library keeps them in one piece. Neither way waits long for the other: a record is a matter of
/// microseconds.
#[derive(Clone)]
struct Shared(Arc<Mutex<TransportState>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, TransportState> {
        // Nothing is left half done by a panic elsewhere: a record is sealed or it is not.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

/// Seals what this node says on a link.
#[derive(Debug)]
pub struct Sealer(Shared);

impl Sealer {
    /// Seals as much of `plain` as fits in one record, appends that to `into`, and tells how much it was.
    ///
    /// # Errors
    /// [`ChannelError::Unavailable`]; `into` is then as before, and the link of no use.
    pub fn seal(&mut self, plain: &[u8], into: &mut Vec<u8>) -> Result<usize, ChannelError> {
        let taken = plain.len().min(RECORD_BYTES_MAX - TAG_BYTES);
        let sealed_bytes = taken + TAG_BYTES;
        let start = into.len();
        into.reserve_exact(RECORD_PREFIX_BYTES + sealed_bytes);
        into.extend_from_slice(&(sealed_bytes as u16).to_le_bytes());
        into.resize(start + RECORD_PREFIX_BYTES + sealed_bytes, 0);
        let mut transport = self.0.lock();
        match transport.write_message(&plain[..taken], &mut into[start + RECORD_PREFIX_BYTES..]) {
            Ok(_) => {
                if transport.sending_nonce().is_multiple_of(RECORDS_PER_KEY) {
                    transport.rekey_outgoing();
                }
                Ok(taken)
            }
            Err(error) => {
                into.truncate(start);
                Err(ChannelError::Unavailable(error))
            }
        }
    }

    /// Seals all of `plain` in as many records as it takes.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn seal_all(&mut self, mut plain: &[u8], into: &mut Vec<u8>) -> Result<(), ChannelError> {
        while !plain.is_empty() {
            let taken = self.seal(plain, into)?;
            plain = &plain[taken..];
        }
        Ok(())
    }
}

/// Opens what the other end of a link says. Keeps at most one record that is not whole yet.
#[derive(Debug)]
pub struct Opener {
    shared: Shared,
    partial: Vec<u8>,
}

impl Opener {
    /// Takes in `chunk`, and gives back what the records say that are now whole.
    ///
    /// # Errors
    /// [`ChannelError::Altered`]; the stream is of no use then.
    pub fn open(&mut self, chunk: &[u8]) -> Result<Vec<u8>, ChannelError> {
        let mut plain = Vec::with_capacity(chunk.len());
        let mut rest = chunk;
        while !self.partial.is_empty() {
            let wanted = match record_bytes(&self.partial)? {
                None => RECORD_PREFIX_BYTES,
                Some(bytes) if self.partial.len() < bytes => bytes,
                Some(_) => {
                    let whole = std::mem::take(&mut self.partial);
                    self.open_record(&whole[RECORD_PREFIX_BYTES..], &mut plain)?;
                    break;
                }
            };
            let (taken, left) = rest.split_at(rest.len().min(wanted - self.partial.len()));
            self.partial.extend_from_slice(taken);
            rest = left;
            if taken.is_empty() {
                return Ok(plain);
            }
        }
        while let Some(bytes) = record_bytes(rest)?
            && let Some((record, left)) = rest.split_at_checked(bytes)
        {
            self.open_record(&record[RECORD_PREFIX_BYTES..], &mut plain)?;
            rest = left;
        }
        self.partial.extend_from_slice(rest);
        Ok(plain)
    }

    /// Opens one record, without its prefix, and appends what it says to `plain`.
    ///
    /// # Errors
    /// [`ChannelError::Altered`].
    pub fn open_record(&mut self, sealed: &[u8], plain: &mut Vec<u8>) -> Result<(), ChannelError> {
        let start = plain.len();
        plain.resize(start + sealed.len().saturating_sub(TAG_BYTES), 0);
        let mut transport = self.shared.lock();
        transport.read_message(sealed, &mut plain[start..]).map_err(|_| ChannelError::Altered)?;
        if transport.receiving_nonce().is_multiple_of(RECORDS_PER_KEY) {
            transport.rekey_incoming();
        }
        Ok(())
    }

    /// How many bytes it keeps of a record that is not whole yet.
    pub fn kept_bytes(&self) -> usize {
        self.partial.len()
    }
}

/// The length of the record that `bytes` begin with, with its prefix; `None` while the prefix is not whole. No node seals
/// nothing: a record without content was not made by one.
fn record_bytes(bytes: &[u8]) -> Result<Option<usize>, ChannelError> {
    let Some(prefix) = bytes.first_chunk::<RECORD_PREFIX_BYTES>() else { return Ok(None) };
    let sealed_bytes = usize::from(u16::from_le_bytes(*prefix));
    if sealed_bytes <= TAG_BYTES {
        return Err(ChannelError::Altered);
    }
    Ok(Some(RECORD_PREFIX_BYTES + sealed_bytes))
}

/// What is wrong with a channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// What came was not sealed by the other end for this place of this link, or on its way it was changed.
    #[error("what came was altered on its way, repeated, or made without the network's key")]
    Altered,
    /// Nothing can be sealed: the system gives no random numbers, or so many records were sealed as can be counted.
    #[error("nothing can be sealed: {0}")]
    Unavailable(#[source] snow::Error),
}

#[cfg(test)]
mod tests;
