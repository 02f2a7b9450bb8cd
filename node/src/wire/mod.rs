//! The bounded binary form of messages, in length-prefixed frames.
//!
//! A frame is the length of its body (`u32`, little endian) and the body: a [`Message`] in postcard's form. A frame with an
//! empty body is the sender's farewell: it closes the link in order. Nothing is allocated for a length that is out of bounds,
//! and a message that is decoded is one whose lists, payload and ids are within the network's bounds.

mod dictionary;
mod frame;

use postcard::ser_flavors::Flavor;

pub use frame::{FrameError, FrameReader};

use crate::id::{Id, Ring};
use crate::message::client::{ClientTalk, Reply};
use crate::message::dictionary::Stored;
use crate::message::{
    ACKS_MAX, Body, CONTACTS_MAX, Contact, DESTINATIONS_MAX, Found, Message, PAYLOAD_BYTES_MAX, Route,
    UNDELIVERABLE_MAX,
};

/// The largest body of a frame, in bytes.
pub const FRAME_BYTES_MAX: usize = 2 << 20;

/// The largest body of a frame that carries no routed message and no items of the dictionary, in bytes: full lists of acknowledgements or contacts fit.
pub const CONTROL_BYTES_MAX: usize = 8 << 10;

/// The length prefix of a frame, in bytes.
pub const PREFIX_BYTES: usize = 4;

/// The frame that announces the end of a link.
pub const FAREWELL: [u8; PREFIX_BYTES] = [0; PREFIX_BYTES];

/// The room made for a frame at once: most need no more.
const ROOM_BYTES: usize = 192;

/// The first byte of a body that may be large: postcard's number of [`Message::Route`] or [`Message::Dictionary`].
const LARGE_TAGS: [u8; 2] = [0, 1];

/// Appends `message` as a frame to `into`, and tells the frame's length in bytes with its prefix.
///
/// # Errors
/// [`WireError::TooLarge`] for a message that no receiver would take; `into` is then as before.
pub fn encode(message: &Message, into: &mut Vec<u8>) -> Result<usize, WireError> {
    let start = into.len();
    into.reserve(ROOM_BYTES);
    into.extend_from_slice(&FAREWELL);
    let written = postcard::serialize_with_flavor(message, Append(into));
    let bytes = into.len() - start - PREFIX_BYTES;
    let error = match written {
        Ok(()) if bytes <= FRAME_BYTES_MAX => {
            into[start..start + PREFIX_BYTES].copy_from_slice(&(bytes as u32).to_le_bytes());
            return Ok(bytes + PREFIX_BYTES);
        }
        Ok(()) => WireError::TooLarge { bytes },
        Err(source) => WireError::Form(source),
    };
    into.truncate(start);
    Err(error)
}

/// Reads the body of a frame as a message of a network whose ids lie on `ring`.
///
/// # Errors
/// A body that is no message, or one with a list, a payload or an id out of bounds.
pub fn decode(body: &[u8], ring: Ring) -> Result<Message, WireError> {
    if body.len() > CONTROL_BYTES_MAX && !LARGE_TAGS.contains(&body[0]) {
        return Err(WireError::TooLarge { bytes: body.len() });
    }
    let (message, rest) = postcard::take_from_bytes::<Message>(body).map_err(WireError::Form)?;
    if !rest.is_empty() {
        return Err(WireError::Trailing { bytes: rest.len() });
    }
    check(&message, ring)?;
    Ok(message)
}

fn check(message: &Message, ring: Ring) -> Result<(), WireError> {
    match message {
        Message::Route(route) => check_route(route, ring),
        Message::Dictionary(talk) => dictionary::check_talk(talk, ring),
        Message::Acks(acks) => check_length("acknowledgements", acks.len(), ACKS_MAX),
        Message::Answer { result: Ok(Found { responsible, .. }), .. } => check_id(responsible.id, ring),
        Message::Check { target, .. } => check_id(*target, ring),
        Message::JoinOffer { successors, .. }
        | Message::Left { successors }
        | Message::Introduce { successors } => check_contacts(successors, ring),
        Message::HandOver { predecessor, successors, fingers } => {
            check_contacts(predecessor.as_slice(), ring)?;
            check_contacts(successors, ring)?;
            check_contacts(fingers, ring)
        }
        Message::Neighbours { predecessor, second, successors, .. } => {
            check_contacts(predecessor.as_slice(), ring)?;
            check_ids(second.as_slice(), 1, ring)?;
            check_contacts(successors, ring)
        }
        Message::Leave { predecessor } | Message::Notify { predecessor } => {
            check_contacts(predecessor.as_slice(), ring)
        }
        Message::Undeliverable { destinations, .. } => check_ids(destinations, UNDELIVERABLE_MAX, ring),
        Message::Client(talk) => check_client_talk(talk, ring),
        Message::Answer { result: Err(_), .. }
        | Message::Receipt { .. }
        | Message::JoinConfirm { .. }
        | Message::LeaveTaken(_)
        | Message::Query { .. }
        | Message::Busy { .. }
        | Message::Checked { .. } => Ok(()),
    }
}

fn check_route(route: &Route, ring: Ring) -> Result<(), WireError> {
    check_id(route.source.id, ring)?;
    check_id(route.key, ring)?;
    if let Some(entry) = route.entry {
        check_id(entry, ring)?;
    }
    match &route.body {
        Body::Data { payload, .. } | Body::Reliable { payload, .. } => check_payload(payload),
        Body::Broadcast { last, payload } => check_id(*last, ring).and_then(|()| check_payload(payload)),
        Body::Multicast { destinations, payload } => {
            check_ids(destinations, DESTINATIONS_MAX, ring).and_then(|()| check_payload(payload))
        }
        Body::Dictionary(request) => dictionary::check_request(request, ring),
        Body::Reply { reply, .. } => check_reply(reply, ring),
        Body::Change { last, gone, heir } => {
            let contacts = gone.iter().chain([heir]);
            check_id(*last, ring)
                .and_then(|()| contacts.map(|contact| contact.id).try_for_each(|id| check_id(id, ring)))
        }
        Body::Lookup { .. } | Body::Join => Ok(()),
    }
}

fn check_client_talk(talk: &ClientTalk, ring: Ring) -> Result<(), WireError> {
    match talk {
        ClientTalk::Located { result: Ok(contact), .. } => check_id(contact.id, ring),
        ClientTalk::Accepted { predecessor, successors, .. } => {
            check_contacts(predecessor.as_slice(), ring)?;
            check_contacts(successors, ring)
        }
        ClientTalk::Locate { .. }
        | ClientTalk::Located { .. }
        | ClientTalk::Admit { .. }
        | ClientTalk::Rejected { .. }
        | ClientTalk::Farewell => Ok(()),
    }
}

fn check_reply(reply: &Reply, ring: Ring) -> Result<(), WireError> {
    match reply {
        Reply::Answer { result: Ok(Found { responsible, .. }), .. } => check_id(responsible.id, ring),
        Reply::Undeliverable { destinations, .. } => check_ids(destinations, UNDELIVERABLE_MAX, ring),
        Reply::Value { result: Ok(Some(Stored { value, .. })), .. } => dictionary::check_value(Some(value)),
        Reply::Answer { .. } | Reply::Receipt { .. } | Reply::Written { .. } | Reply::Value { .. } => Ok(()),
    }
}

fn check_payload(payload: &[u8]) -> Result<(), WireError> {
    check_length("payload bytes", payload.len(), PAYLOAD_BYTES_MAX)
}

fn check_ids(ids: &[Id], max: usize, ring: Ring) -> Result<(), WireError> {
    check_length("destinations", ids.len(), max)?;
    ids.iter().try_for_each(|id| check_id(*id, ring))
}

fn check_contacts(contacts: &[Contact], ring: Ring) -> Result<(), WireError> {
    check_length("contacts", contacts.len(), CONTACTS_MAX)?;
    contacts.iter().try_for_each(|contact| check_id(contact.id, ring))
}

fn check_id(id: Id, ring: Ring) -> Result<(), WireError> {
    if ring.contains(id) { Ok(()) } else { Err(WireError::OffRing { id, ring }) }
}

fn check_length(what: &'static str, length: usize, max: usize) -> Result<(), WireError> {
    if length <= max { Ok(()) } else { Err(WireError::TooLong { what, length, max }) }
}

/// Why bytes are no message, or a message cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes are no message's.
    #[error("the frame holds no message")]
    Form(#[source] postcard::Error),
    /// More bytes than a message of its kind may have.
    #[error("the message has {bytes} bytes, more than one of its kind may have")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Bytes follow the message.
    #[error("{bytes} bytes follow the message in its frame")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A list or a payload is longer than allowed.
    #[error("the message has {length} {what}, at most {max} are allowed")]
    TooLong {
        /// Of what there are too many.
        what: &'static str,
        /// How many there are.
        length: usize,
        /// How many there may be.
        max: usize,
    },
    /// An id is not on the network's ring.
    #[error("id {id} is not on the ring of {ring} ids")]
    OffRing {
        /// The id.
        id: Id,
        /// The network's ring.
        ring: Ring,
    },
}

/// Lets postcard write behind what a buffer holds already.
struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
