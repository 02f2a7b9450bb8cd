//! What a node's communication may take at most.

use std::time::Duration;

use crate::wire::FRAME_BYTES_MAX;

/// The most links that stand at once.
pub const LINKS_MAX: usize = 2048;

/// The most links to nodes that stand in none of the node's tables. The least recently used are closed beyond it.
pub const LINKS_SPARE_MAX: usize = 64;

/// By how much the spare links may outgrow [`LINKS_SPARE_MAX`] before they are looked through.
pub const LINKS_SPARE_SLACK: usize = 16;

/// The most links that one node may hold to another: two that dial each other at once need two.
pub const LINKS_PER_CONTACT_MAX: usize = 4;

/// The most links that have said farewell and wait for the other end to close.
pub const LINKS_CLOSING_MAX: usize = 64;

/// The most bytes that wait to be written on one link. More is dropped: the overlay sends again, or elsewhere.
pub const LINK_BACKLOG_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

/// The most bytes that wait to be written on all links and dials together.
pub const BACKLOG_BYTES_MAX: usize = 64 << 20;

/// The most bytes of frames that are not whole yet, on all links together. The link that goes past it is closed.
pub const PARTIAL_BYTES_MAX: usize = 32 << 20;

/// The most dials at once; a dial beyond them fails at once.
pub const DIALS_MAX: usize = 256;

/// The most bytes that wait for one dial to succeed. More is dropped.
pub const DIAL_QUEUE_BYTES_MAX: usize = FRAME_BYTES_MAX + 4096;

/// How long a dial may take, from the connection's start to the handshake's end.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The most incoming connections that have not completed their handshake. The oldest is dropped for one more.
pub const HANDSHAKES_MAX: usize = 128;

/// How long an incoming connection may take for its handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest body of a handshake's frame, in bytes.
pub const HANDSHAKE_BYTES_MAX: usize = 256;

/// The most bytes that are read, and thrown away, behind a refused handshake so that the refusal arrives.
pub const REFUSED_BYTES_MAX: u64 = 64 << 10;

/// How long a link is silent before the kernel asks whether the other host is there.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// How often the kernel asks then.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// How many questions may go unanswered.
pub const KEEPALIVE_PROBES: u32 = 3;

/// How long written bytes may go unacknowledged before the kernel breaks a link.
pub const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(20);

/// How many bytes are read at once: on the stack of the one thread that reads, not for each link.
pub const READ_BYTES: usize = 16 << 10;

/// How often a link is read before the other links have their turn.
pub const READS_PER_TURN: usize = 4;

/// The most messages that wait for the application to take them. A newer one is dropped.
pub const MESSAGES_WAITING_MAX: usize = 4096;

/// The most payload bytes that wait for the application to take them. A message that goes past it is dropped.
pub const MESSAGES_WAITING_BYTES_MAX: usize = 16 << 20;

/// The most events that wait for the application to take them. The oldest is dropped for one more.
pub const EVENTS_WAITING_MAX: usize = 1024;

/// The most look-ups of the application that are on their way at once; one more ends in `Overloaded`.
pub const LOOKUPS_MAX: usize = 1 << 16;

/// The longest that a shaped link delays a message beyond what its bandwidth makes it wait.
pub const SHAPED_DELAY_MAX: Duration = Duration::from_secs(60);

/// The most bytes that wait on one shaped link, [`SHAPED_MESSAGE_BYTES`] for each message with them. A message that finds so
/// many before it is dropped.
pub const SHAPED_LINK_BYTES_MAX: usize = 4 << 20;

/// The most bytes that wait on all shaped links of a node, counted in the same way.
pub const SHAPED_BYTES_MAX: usize = 16 << 20;

/// What a message that waits costs beside its frame, in bytes.
pub const SHAPED_MESSAGE_BYTES: usize = 160;
