//! The COM layer: access points, links, failure detection.
//!
//! Two nodes talk over TCP [`link`]s that a [`handshake`] opens: it refuses other versions of the protocol, other networks and
//! nodes that are not who was dialled. A link that breaks off without a farewell means that the node at its other end is
//! gone; the kernel's keepalive finds the hosts that vanish silently, so that a node at rest sends and wakes up for nothing.
//! [`links`] holds all links of a node and bounds them by [`limits`]; for experiments, [`shaping`] makes faults on them. Where
//! the network has a [`key`], each link is a sealed [`channel`].

pub mod runtime;
pub mod limits;
pub mod key;
pub mod channel;
pub mod handshake;
mod outgoing;
pub mod link;
pub mod links;
pub mod shaping;
