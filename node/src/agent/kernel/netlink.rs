//! Messages to the kernel over netlink, and what it answers. Numbers are those of `linux/netlink.h`.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink as protocols;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// The longest answer that is read, in bytes. One that is longer has a message that failed repeated in it, or a queue's many settings;
/// what is of use comes first.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Flags of messages.
pub(super) const REQUEST: u16 = 1;
pub(super) const ACK: u16 = 4;
pub(super) const ECHO: u16 = 8;
pub(super) const EXCLUSIVE: u16 = 0x200;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;

/// The flag of attributes that hold others.
const NESTED: u16 = 0x8000;

/// `NLMSG_ERROR`, which says that nothing went wrong, too.
const ERROR: u16 = 2;

/// The bytes of `nlmsghdr`.
pub(super) const HEADER_BYTES: usize = 16;

/// Why nothing came of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NetlinkError {
    /// The kernel says so.
    Refused(Errno),
    /// It does not say anything.
    NoAnswer,
}

impl From<Errno> for NetlinkError {
    fn from(error: Errno) -> NetlinkError {
        NetlinkError::Refused(error)
    }
}

/// Which part of the kernel is spoken to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// Packet filters.
    Netfilter,
    /// Routes and queues.
    Routes,
}

/// A way to the kernel.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub(super) fn open(part: Part) -> Result<Socket, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol: Option<Protocol> = match part {
            Part::Netfilter => Some(protocols::NETFILTER),
            // NETLINK_ROUTE is number 0: none.
            Part::Routes => None,
        };
        Ok(Socket(socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?))
    }

    /// Sends messages, of which one at least wants to be told what became of it, and gives back the messages that are no
    /// acknowledgements: the kernel has answered when they have been sent.
    pub(super) fn exchange(&self, messages: &[u8]) -> Result<Vec<Answer>, NetlinkError> {
        send(&self.0, messages, SendFlags::empty())?;
        let (mut answered, mut refused, mut answers) = (false, None, Vec::new());
        let mut bytes = vec![0; ANSWER_BYTES_MAX];
        loop {
            match recv(&self.0, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    for answer in split(&bytes[..length.min(ANSWER_BYTES_MAX)]) {
                        match answer.acknowledged() {
                            Some(error) => {
                                answered = true;
                                refused = refused.or(error);
                            }
                            None => answers.push(answer),
                        }
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match refused {
            Some(error) => Err(error.into()),
            None if answered => Ok(answers),
            None => Err(NetlinkError::NoAnswer),
        }
    }
}

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    kind: u16,
    /// What follows its header.
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// What an acknowledgement says: `None` in it where something has been done.
    fn acknowledged(&self) -> Option<Option<Errno>> {
        let code = self.body.first_chunk().filter(|_| self.kind == ERROR)?;
        let code = i32::from_ne_bytes(*code);
        Some((code != 0).then(|| Errno::from_raw_os_error(code.saturating_neg())))
    }

    /// The value of an attribute, which come after so many bytes of the body.
    pub(super) fn attribute(&self, from: usize, wanted: u16) -> Option<&[u8]> {
        let mut rest = self.body.get(from..)?;
        while let Some([low, high, kind_low, kind_high]) = rest.first_chunk() {
            let length = usize::from(u16::from_ne_bytes([*low, *high])).max(4);
            if u16::from_ne_bytes([*kind_low, *kind_high]) & !NESTED == wanted {
                return rest.get(4..length);
            }
            rest = rest.get(length.next_multiple_of(4)..)?;
        }
        None
    }

    /// The number at this place of the body.
    pub(super) fn number(&self, at: usize) -> Option<u32> {
        self.body.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }
}

/// The messages of an answer, whatever is in it.
fn split(mut answer: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some(header) = answer.get(..HEADER_BYTES) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = answer.get(HEADER_BYTES..length.clamp(HEADER_BYTES, answer.len())).unwrap_or_default();
        answers.push(Answer { kind, body: body.to_vec() });
        answer = answer.get(length.max(HEADER_BYTES).next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

/// A message: its header, what its kind has for one, and attributes.
pub(super) fn message(kind: u16, flags: u16, head: &[u8], attributes: &[u8]) -> Vec<u8> {
    let length = (HEADER_BYTES + head.len() + attributes.len()) as u32;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(head);
    bytes.extend(attributes);
    bytes
}

/// An attribute, filled up to a multiple of four bytes.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// An attribute that holds others.
pub(super) fn nested(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, attributes)
}

/// An attribute that is a text, with its end.
pub(super) fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_and_messages_are_aligned_and_say_their_length() {
        assert_eq!(text(7, "abcd"), [9, 0, 7, 0, b'a', b'b', b'c', b'd', 0, 0, 0, 0].map(|byte: u8| byte));
        let message = message(5, REQUEST, &[1, 0, 0, 10], &attribute(1, &[9]));
        assert_eq!(message.len(), 28);
        assert_eq!(message[..4], 28u32.to_ne_bytes());
        assert_eq!(message[16..20], [1, 0, 0, 10]);
        let answers = split(&message);
        assert_eq!(answers[0].attribute(4, 1), Some(&[9][..]));
        assert_eq!(answers[0].attribute(4, 2), None);
        assert_eq!(answers[0].number(0), Some(u32::from_ne_bytes([1, 0, 0, 10])));
    }

    #[test]
    fn answers_of_any_form_are_read_without_harm() {
        let answer = |code: i32| message(ERROR, 0, &code.to_ne_bytes(), &[]);
        let acknowledged = |bytes: &[u8]| -> Vec<Option<Errno>> {
            split(bytes).iter().filter_map(Answer::acknowledged).collect()
        };
        assert_eq!(acknowledged(&[answer(0), answer(-1)].concat()), [None, Some(Errno::PERM)]);
        assert_eq!(acknowledged(&[]), []);
        assert_eq!(acknowledged(&[0; 64]), []);
        assert_eq!(acknowledged(&[255; 64]), []);
        assert_eq!(acknowledged(&answer(i32::MIN)[..19]), []);
        for bytes in [[0; 64], [255; 64], [4; 64]] {
            for answer in split(&bytes) {
                assert!(answer.attribute(0, 99).is_none() && answer.attribute(70, 1).is_none());
            }
        }
    }
}
