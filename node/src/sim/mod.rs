//! The simulator: the same [`Peer`](crate::peer::Peer) that runs on sockets, in a virtual network and in virtual time.
//!
//! A [`Simulator`] holds any number of nodes and one queue of events; the clock jumps from one event to the next. It knows no
//! clock, socket, task or randomness but its seed, runs on one thread, and computes latencies with integers or with `libm`'s
//! functions (written in Rust, so that every machine rounds alike). The same seed and the same calls are therefore the same
//! run to the byte, and [`Simulator::trace`] is a hash of all that happened, to compare runs by.
//!
//! What is modelled is what the socket driver does: links are dialled when they are first needed, and a dial costs a round
//! trip before what waits for it leaves, and another before the link counts as made; messages of a link keep their order;
//! a node that is killed resets its links, one whose host vanishes is noticed by time-outs only; a stopped process keeps its
//! links while what is sent to it waits; links that no table needs are closed when they become too many. A node behind a firewall
//! makes links, but none can be made to it ([`Simulator::set_proxy_use`]). Messages are
//! measured in their wire form. Faults of links are made by the same [`Shaper`](crate::com::shaping::Shaper) as on sockets.
//!
//! What is not: bandwidth of hosts, processor time, and TCP's retransmissions ([`NetworkModel::loss_ppm`] loses messages, as
//! shaped links do).

mod clock;
mod engine;
mod happening;
mod latency;
mod links;
mod membership;
mod network;
mod node;
mod queue;
mod trace;
mod watch;

pub use clock::{CLOCK_OFFSET_US_MAX, CLOCK_RATE_PPM_MAX, ClockSkew};
pub use engine::{Simulator, Totals};
pub use happening::{Happening, What};
pub use latency::{LATENCY_US_MAX, Latency, Matrix, MatrixError};
pub use membership::NodeNumber;
pub use network::NetworkModel;
pub use trace::Trace;
pub use watch::{Broadcasting, Duplicated, Sending, Watch};
