//! The first frame each way over a new connection.
//!
//! Each begins with the magic `P2PS` and the version of the protocol, which any version can read; the rest only nodes of one
//! version understand of each other. The dialling node says who it is, whom it expects, and with which settings; the other
//! welcomes it or says why not. A node that does not know a network's settings yet asks for them. Messages may follow the
//! dialling node's frame at once: they are read only if it is welcome.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::limits::{HANDSHAKE_BYTES_MAX, REFUSED_BYTES_MAX};
use crate::config::{NetConfig, PROTOCOL_VERSION};
use crate::id::{Id, Ring};
use crate::message::Contact;
use crate::wire::PREFIX_BYTES;

const MAGIC: [u8; 4] = *b"P2PS";
const FIXED_BYTES: usize = MAGIC.len() + 2;

/// What a dialling node wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hello {
    /// To know the network's settings; the connection ends with the answer.
    Settings,
    /// A link.
    Link {
        /// The settings it works with.
        net: NetConfig,
        /// Who it is.
        contact: Contact,
        /// The id and the incarnation of the node that it believes to dial, if anyone in particular.
        expected: Option<(Id, u64)>,
    },
}

/// What the dialled node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The settings it works with.
    pub net: NetConfig,
    /// Who it is.
    pub contact: Contact,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Reply {
    Welcome(Welcome),
    OtherSettings { net: NetConfig },
    OtherNode { contact: Contact },
    OffRing { ring: Ring },
    Itself,
    Full,
}

/// The dialling side: says `hello`, with frames that may follow it at once, and waits for the welcome.
///
/// # Errors
/// Any [`HandshakeError`].
pub async fn offer(stream: &mut TcpStream, hello: &Hello, frames: &[u8]) -> Result<Welcome, HandshakeError> {
    let mut bytes = encode(PROTOCOL_VERSION, hello)?;
    bytes.extend_from_slice(frames);
    stream.write_all(&bytes).await?;
    let (ours, expected) = match hello {
        Hello::Settings => (None, None),
        Hello::Link { net, expected, .. } => (Some(*net), *expected),
    };
    let refused = |found| match expected {
        Some((id, incarnation)) => HandshakeError::OtherNode { id, incarnation, found },
        None => HandshakeError::Malformed,
    };
    match read::<Reply>(stream).await? {
        Reply::Welcome(welcome) => match ours {
            Some(ours) if ours != welcome.net => {
                Err(HandshakeError::OtherSettings { ours, theirs: welcome.net })
            }
            _ if expected.is_some_and(|expected| expected != identity(&welcome.contact)) => {
                Err(refused(welcome.contact))
            }
            _ if !welcome.net.ring().contains(welcome.contact.id) => {
                Err(HandshakeError::OffRing { id: welcome.contact.id, ring: welcome.net.ring() })
            }
            _ => Ok(welcome),
        },
        Reply::OtherSettings { net: theirs } => match ours {
            Some(ours) => Err(HandshakeError::OtherSettings { ours, theirs }),
            None => Err(HandshakeError::Malformed),
        },
        Reply::OtherNode { contact } => Err(refused(contact)),
        Reply::OffRing { ring } => Err(match hello {
            Hello::Link { contact, .. } => HandshakeError::OffRing { id: contact.id, ring },
            Hello::Settings => HandshakeError::Malformed,
        }),
        Reply::Itself => Err(HandshakeError::Itself),
        Reply::Full => Err(HandshakeError::Full),
    }
}

/// The dialled side: reads what the other wants, and answers for `ours`, once `reach` says that an answer can reach that
/// contact. `admit` tells whether there is room for a link to it. Tells who is at the other end; `None` where it only asked
/// for the settings.
///
/// # Errors
/// Any [`HandshakeError`]; the other end has then been told, as far as it speaks the protocol at all.
pub async fn answer<Reached: Future<Output = ()>>(
    stream: &mut TcpStream,
    ours: Welcome,
    reach: impl FnOnce(Contact) -> Reached,
    admit: impl FnOnce(&Contact) -> bool,
) -> Result<Option<Contact>, HandshakeError> {
    let hello = match read::<Hello>(stream).await {
        Ok(hello) => hello,
        Err(error) => {
            if matches!(error, HandshakeError::OtherVersion { .. }) {
                // The version in front is all that the other end can read.
                refuse(stream, &Reply::Full).await?;
            }
            return Err(error);
        }
    };
    let Hello::Link { net, contact, expected } = hello else {
        stream.write_all(&encode(PROTOCOL_VERSION, &Reply::Welcome(ours))?).await?;
        return Ok(None);
    };
    reach(contact).await;
    let (reply, error) = if net != ours.net {
        (
            Reply::OtherSettings { net: ours.net },
            HandshakeError::OtherSettings { ours: ours.net, theirs: net },
        )
    } else if !net.ring().contains(contact.id) {
        (Reply::OffRing { ring: net.ring() }, HandshakeError::OffRing { id: contact.id, ring: net.ring() })
    } else if contact == ours.contact {
        (Reply::Itself, HandshakeError::Itself)
    } else if let Some((id, incarnation)) = expected.filter(|expected| *expected != identity(&ours.contact)) {
        (
            Reply::OtherNode { contact: ours.contact },
            HandshakeError::OtherNode { id, incarnation, found: ours.contact },
        )
    } else if !admit(&contact) {
        (Reply::Full, HandshakeError::Full)
    } else {
        stream.write_all(&encode(PROTOCOL_VERSION, &Reply::Welcome(ours))?).await?;
        return Ok(Some(contact));
    };
    refuse(stream, &reply).await?;
    Err(error)
}

fn identity(contact: &Contact) -> (Id, u64) {
    (contact.id, contact.incarnation)
}

/// Says no, and reads what was sent in the meantime: closing a socket over unread bytes would take the refusal back.
async fn refuse(stream: &mut TcpStream, reply: &Reply) -> Result<(), HandshakeError> {
    stream.write_all(&encode(PROTOCOL_VERSION, reply)?).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(REFUSED_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}

fn encode<T: Serialize>(version: u16, value: &T) -> Result<Vec<u8>, HandshakeError> {
    let mut bytes = vec![0; PREFIX_BYTES];
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&version.to_le_bytes());
    let mut bytes = postcard::to_extend(value, bytes).map_err(|_| HandshakeError::Malformed)?;
    let body_bytes = (bytes.len() - PREFIX_BYTES) as u32;
    bytes[..PREFIX_BYTES].copy_from_slice(&body_bytes.to_le_bytes());
    Ok(bytes)
}

async fn read<T: for<'a> Deserialize<'a>>(stream: &mut TcpStream) -> Result<T, HandshakeError> {
    let mut prefix = [0; PREFIX_BYTES];
    stream.read_exact(&mut prefix).await?;
    let body_bytes = u32::from_le_bytes(prefix) as usize;
    if !(FIXED_BYTES..=HANDSHAKE_BYTES_MAX).contains(&body_bytes) {
        return Err(HandshakeError::NotP2ps);
    }
    let mut body = [0; HANDSHAKE_BYTES_MAX];
    let body = &mut body[..body_bytes];
    stream.read_exact(body).await?;
    let (fixed, rest) = body.split_at(FIXED_BYTES);
    if fixed[..MAGIC.len()] != MAGIC {
        return Err(HandshakeError::NotP2ps);
    }
    let version = u16::from_le_bytes([fixed[MAGIC.len()], fixed[MAGIC.len() + 1]]);
    if version != PROTOCOL_VERSION {
        return Err(HandshakeError::OtherVersion { ours: PROTOCOL_VERSION, theirs: version });
    }
    postcard::from_bytes(rest).map_err(|_| HandshakeError::Malformed)
}

/// Why two nodes made no link.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection could not be made, or broke.
    #[error("the connection failed: {0}")]
    Connection(#[from] io::Error),
    /// The other end took too long.
    #[error("no handshake in time")]
    TimedOut,
    /// The other end does not speak P2PS.
    #[error("the other end does not speak P2PS")]
    NotP2ps,
    /// The other end speaks P2PS's version, but not its form.
    #[error("the handshake cannot be understood")]
    Malformed,
    /// The other end speaks another version of the protocol (P2PS 1.0's `versionMismatch`).
    #[error("this node speaks version {ours} of the protocol, the other version {theirs}")]
    OtherVersion {
        /// This node's version.
        ours: u16,
        /// The other's version.
        theirs: u16,
    },
    /// The other end belongs to a network with other settings.
    #[error("this node's network has other settings ({ours}) than the other's ({theirs})")]
    OtherSettings {
        /// This node's settings.
        ours: NetConfig,
        /// The other's settings.
        theirs: NetConfig,
    },
    /// Another node answers where one was expected.
    #[error(
        "node {id} (incarnation {incarnation}) was expected, node {} (incarnation {}) answered",
        found.id,
        found.incarnation
    )]
    OtherNode {
        /// The id that was expected.
        id: Id,
        /// The incarnation that was expected.
        incarnation: u64,
        /// Who answered.
        found: Contact,
    },
    /// An id is not on the network's ring.
    #[error("id {id} is not on the network's ring of {ring} ids")]
    OffRing {
        /// The id.
        id: Id,
        /// The ring.
        ring: Ring,
    },
    /// A node dialled itself.
    #[error("the node at the other end is this node itself")]
    Itself,
    /// The dialled node has as many links as it may have.
    #[error("the node has no room for another link")]
    Full,
}

impl HandshakeError {
    /// Whether another attempt with the same node must end in the same way.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            HandshakeError::NotP2ps
                | HandshakeError::OtherVersion { .. }
                | HandshakeError::OtherSettings { .. }
                | HandshakeError::OffRing { .. }
                | HandshakeError::Itself
        )
    }
}

#[cfg(test)]
mod tests;
