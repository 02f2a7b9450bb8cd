//! The first frame each way over a new connection.
//!
//! Each begins with the magic `P2PS` and the version of the protocol, which any version can read; the rest only nodes of one
//! version understand of each other. The dialling node says who it is, whom it expects, and with which settings; the other
//! welcomes it or says why not. A node that does not know a network's settings yet asks for them. Messages may follow the
//! dialling node's frame at once: they are read only if it is welcome.
//!
//! Where the network has a key, all of this goes through a sealed [`channel`]: before it, each end says an
//! [`Opening`] in a frame of the same form, which names no node and no settings. Whoever comes without the key, or with
//! another, is told so, and nothing else; so is a node with a key that comes to a network without one.

mod error;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::channel::{
    self, Channel, ChannelError, Dialling, Opener, Opening, RECORD_PREFIX_BYTES, TAG_BYTES,
};
use super::key::NetworkKey;
use super::limits::{HANDSHAKE_BYTES_MAX, REFUSED_BYTES_MAX};
use crate::config::{NetConfig, PROTOCOL_VERSION};
use crate::id::{Id, Ring};
use crate::message::Contact;
use crate::wire::PREFIX_BYTES;

pub use error::{HandshakeError, KeyMismatch};

const MAGIC: [u8; 4] = *b"P2PS";

/// What a handshake goes over: a connection, which is read and written.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}
const FIXED_BYTES: usize = MAGIC.len() + 2;

/// The largest record of a handshake, without its prefix, in bytes.
const RECORD_BYTES_MAX: usize = PREFIX_BYTES + HANDSHAKE_BYTES_MAX + TAG_BYTES;

/// The first byte behind the fixed ones of a frame that opens a channel: postcard's number of [`Hello::Open`].
const OPEN_TAG: u8 = 2;

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
    /// A sealed channel, through which it says what it wants.
    Open(Opening),
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
    OtherSettings {
        net: NetConfig,
    },
    OtherNode {
        contact: Contact,
    },
    OffRing {
        ring: Ring,
    },
    Itself,
    Full,
    Open(Opening),
    /// As the one who says it sees it.
    OtherKey(KeyMismatch),
}

/// The dialling side: opens a channel where there is a key, says `hello`, with frames that may follow it at once, and waits for
/// the welcome.
///
/// # Errors
/// Any [`HandshakeError`].
pub async fn offer(
    stream: &mut impl Duplex,
    key: Option<&NetworkKey>,
    hello: &Hello,
    frames: &[u8],
) -> Result<(Welcome, Option<Channel>), HandshakeError> {
    let mut channel = match key {
        Some(key) => Some(open(stream, key).await?),
        None => None,
    };
    say(stream, channel.as_mut(), hello, frames).await?;
    let (ours, expected) = match hello {
        Hello::Link { net, expected, .. } => (Some(*net), *expected),
        Hello::Settings | Hello::Open(_) => (None, None),
    };
    let refused = |found| match expected {
        Some((id, incarnation)) => HandshakeError::OtherNode { id, incarnation, found },
        None => HandshakeError::Malformed,
    };
    match hear::<Reply>(stream, channel.as_mut()).await? {
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
            _ => Ok((welcome, channel)),
        },
        Reply::OtherSettings { net: theirs } => match ours {
            Some(ours) => Err(HandshakeError::OtherSettings { ours, theirs }),
            None => Err(HandshakeError::Malformed),
        },
        Reply::OtherNode { contact } => Err(refused(contact)),
        Reply::OffRing { ring } => Err(match hello {
            Hello::Link { contact, .. } => HandshakeError::OffRing { id: contact.id, ring },
            Hello::Settings | Hello::Open(_) => HandshakeError::Malformed,
        }),
        Reply::Itself => Err(HandshakeError::Itself),
        Reply::Full => Err(HandshakeError::Full),
        Reply::OtherKey(mismatch) => Err(HandshakeError::OtherKey(mismatch.as_the_other_sees_it())),
        Reply::Open(_) => Err(HandshakeError::Malformed),
    }
}

/// The dialled side: reads what the other wants, and answers for `ours`, once `reach` says that an answer can reach that
/// contact. `admit` tells whether there is room for a link to it. Tells who is at the other end, and gives the channel to it
/// where there is a key; `None` where it only asked for the settings.
///
/// # Errors
/// Any [`HandshakeError`]; the other end has then been told, as far as it speaks the protocol at all.
pub async fn answer<Reached: Future<Output = ()>>(
    stream: &mut impl Duplex,
    key: Option<&NetworkKey>,
    ours: Welcome,
    reach: impl FnOnce(Contact) -> Reached,
    admit: impl FnOnce(&Contact) -> bool,
) -> Result<Option<(Contact, Option<Channel>)>, HandshakeError> {
    let (hello, mut channel) = match listen(stream, key).await {
        Ok(heard) => heard,
        Err(error) => {
            let reply = match &error {
                // The version in front is all that the other end can read.
                HandshakeError::OtherVersion { .. } => Reply::Full,
                HandshakeError::OtherKey(mismatch) => Reply::OtherKey(*mismatch),
                _ => return Err(error),
            };
            refuse(stream, None, &reply).await?;
            return Err(error);
        }
    };
    let Hello::Link { net, contact, expected } = hello else {
        say(stream, channel.as_mut(), &Reply::Welcome(ours), &[]).await?;
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
        say(stream, channel.as_mut(), &Reply::Welcome(ours), &[]).await?;
        return Ok(Some((contact, channel)));
    };
    refuse(stream, channel.as_mut(), &reply).await?;
    Err(error)
}

/// Opens a channel from the dialling side.
async fn open(stream: &mut impl Duplex, key: &NetworkKey) -> Result<Channel, HandshakeError> {
    let (dialling, opening) = Dialling::begin(key, &prologue())?;
    say(stream, None, &Hello::Open(opening), &[]).await?;
    match hear::<Reply>(stream, None).await? {
        Reply::Open(opening) => Ok(dialling.finish(&opening)?),
        Reply::OtherKey(mismatch) => Err(HandshakeError::OtherKey(mismatch.as_the_other_sees_it())),
        // What else is said in the open comes from nobody in particular.
        _ => Err(HandshakeError::Malformed),
    }
}

/// Hears what a dialling node wants, through a channel where there is a key.
async fn listen(
    stream: &mut impl Duplex,
    key: Option<&NetworkKey>,
) -> Result<(Hello, Option<Channel>), HandshakeError> {
    let mut space = [0; HANDSHAKE_BYTES_MAX];
    let body = fixed_taken(hear_body(stream, &mut space).await?)?;
    let Some(key) = key else {
        return match parse(body)? {
            Hello::Open(_) => Err(HandshakeError::OtherKey(KeyMismatch::OnlyTheirs)),
            hello => Ok((hello, None)),
        };
    };
    // Of what a stranger says, no more than this byte is looked at.
    if body.first() != Some(&OPEN_TAG) {
        return Err(HandshakeError::OtherKey(KeyMismatch::OnlyOurs));
    }
    let Hello::Open(opening) = parse(body)? else { return Err(HandshakeError::Malformed) };
    let accepted = channel::accept(key, &prologue(), &opening).map_err(|error| match error {
        ChannelError::Altered => HandshakeError::OtherKey(KeyMismatch::Differ),
        error => error.into(),
    });
    let (opening, mut channel) = accepted?;
    say(stream, None, &Reply::Open(opening), &[]).await?;
    match hear(stream, Some(&mut channel)).await? {
        Hello::Open(_) => Err(HandshakeError::Malformed),
        hello => Ok((hello, Some(channel))),
    }
}

/// What both ends know before they speak, and hash: nobody between them can make them speak different versions. The
/// network's settings are not part of it: they are told, and compared, behind the openings only, where nobody else hears them.
fn prologue() -> [u8; FIXED_BYTES] {
    let mut prologue = [0; FIXED_BYTES];
    prologue[..MAGIC.len()].copy_from_slice(&MAGIC);
    prologue[MAGIC.len()..].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    prologue
}

fn identity(contact: &Contact) -> (Id, u64) {
    (contact.id, contact.incarnation)
}

/// Says no, and reads what was sent in the meantime: closing a socket over unread bytes would take the refusal back.
async fn refuse(
    stream: &mut impl Duplex,
    channel: Option<&mut Channel>,
    reply: &Reply,
) -> Result<(), HandshakeError> {
    say(stream, channel, reply, &[]).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(REFUSED_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}

/// Says a value, and frames that follow it at once. In a channel, the value is a record of its own.
async fn say<T: Serialize>(
    stream: &mut impl Duplex,
    channel: Option<&mut Channel>,
    value: &T,
    frames: &[u8],
) -> Result<(), HandshakeError> {
    let mut bytes = encode(PROTOCOL_VERSION, value)?;
    match channel {
        None => bytes.extend_from_slice(frames),
        Some(Channel { sealer, .. }) => {
            let plain = std::mem::take(&mut bytes);
            sealer.seal_all(&plain, &mut bytes)?;
            sealer.seal_all(frames, &mut bytes)?;
        }
    }
    Ok(stream.write_all(&bytes).await?)
}

/// Hears a value, and not a byte beyond it.
async fn hear<T: for<'a> Deserialize<'a>>(
    stream: &mut impl Duplex,
    channel: Option<&mut Channel>,
) -> Result<T, HandshakeError> {
    let Some(Channel { opener, .. }) = channel else {
        let mut space = [0; HANDSHAKE_BYTES_MAX];
        return parse(fixed_taken(hear_body(stream, &mut space).await?)?);
    };
    let frame = hear_record(stream, opener).await?;
    let prefix = frame.first_chunk::<PREFIX_BYTES>().ok_or(HandshakeError::Malformed)?;
    let body = &frame[PREFIX_BYTES..];
    if u32::from_le_bytes(*prefix) as usize != body.len() {
        return Err(HandshakeError::Malformed);
    }
    parse(fixed_taken(body)?)
}

/// The body of the next frame.
async fn hear_body<'a>(
    stream: &mut impl Duplex,
    space: &'a mut [u8; HANDSHAKE_BYTES_MAX],
) -> Result<&'a [u8], HandshakeError> {
    let mut prefix = [0; PREFIX_BYTES];
    stream.read_exact(&mut prefix).await?;
    let body_bytes = u32::from_le_bytes(prefix) as usize;
    if !(FIXED_BYTES..=HANDSHAKE_BYTES_MAX).contains(&body_bytes) {
        return Err(HandshakeError::NotP2ps);
    }
    let body = &mut space[..body_bytes];
    stream.read_exact(body).await?;
    Ok(body)
}

/// What the next record says.
async fn hear_record(stream: &mut impl Duplex, opener: &mut Opener) -> Result<Vec<u8>, HandshakeError> {
    let mut prefix = [0; RECORD_PREFIX_BYTES];
    stream.read_exact(&mut prefix).await?;
    let sealed_bytes = usize::from(u16::from_le_bytes(prefix));
    if !(TAG_BYTES..=RECORD_BYTES_MAX).contains(&sealed_bytes) {
        return Err(ChannelError::Altered.into());
    }
    let mut sealed = vec![0; sealed_bytes];
    stream.read_exact(&mut sealed).await?;
    let mut plain = Vec::with_capacity(sealed_bytes);
    opener.open_record(&sealed, &mut plain)?;
    Ok(plain)
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

/// What stands in a body behind the bytes that any version has.
fn fixed_taken(body: &[u8]) -> Result<&[u8], HandshakeError> {
    let (fixed, rest) = body.split_at_checked(FIXED_BYTES).ok_or(HandshakeError::Malformed)?;
    if fixed[..MAGIC.len()] != MAGIC {
        return Err(HandshakeError::NotP2ps);
    }
    let version = u16::from_le_bytes([fixed[MAGIC.len()], fixed[MAGIC.len() + 1]]);
    if version != PROTOCOL_VERSION {
        return Err(HandshakeError::OtherVersion { ours: PROTOCOL_VERSION, theirs: version });
    }
    Ok(rest)
}

fn parse<T: for<'a> Deserialize<'a>>(rest: &[u8]) -> Result<T, HandshakeError> {
    postcard::from_bytes(rest).map_err(|_| HandshakeError::Malformed)
}

#[cfg(test)]
mod tests;
