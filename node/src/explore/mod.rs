//! A breadth-first explorer of the real protocol: every order in which messages of different links, timers, joins, leaves,
//! crashes and losses can follow each other in a small network, with the invariants checked in each state. The nodes are
//! [`Peer`](crate::peer::Peer)s, cloned; there is no model of them that could be wrong.
//!
//! # What is covered
//! From a [`Scenario`]'s ring at rest, all sequences of [`Step`]s within its bounds:
//! - the first message of any link is delivered; links keep order, and any interleaving of different links happens. That two
//!   messages of one link change places, which TCP does not do, is a bound of its own, 0 where not said otherwise;
//! - a message is lost, a node joins, leaves or crashes, an operation begins: in any state, as often as the bounds allow. A
//!   crash loses what is on its way to the node, and is seen by whoever has a link to it, after what the node sent before;
//! - a timer fires. Each node has its own clock, which stands still but for this: it jumps to the node's next deadline. A *near*
//!   deadline ([`NEAR_MAX`]) may come in any state, also before messages that were sent earlier. A *far* one (a time-out,
//!   a round) comes when nothing is on its way and no near one is left, on any node, and at most [`Bounds::rounds`] times:
//!   so no answer is late that is not lost, as failure detection that is right demands, but clocks run at any speed.
//!
//! In each state those invariants are checked that hold while failures are seen. From each *calm* state (nothing on its way, only
//! far deadlines) the network is also let run on without faults, node after node, and must become ideal, with all operations
//! ended, within [`CLOSING_ROUNDS_MAX`] rounds.
//!
//! # Which states are one
//! A state is its 64-bit digest (`core::digest`, which says why that is sound): times count from each node's present, tokens are
//! ranks, statistics and history are left out; so it is for the dictionary's part of a node too. So that nothing else tells states apart, nodes *stand still*: jitter is always that of
//! the same seed, and time-outs are those of a node that has measured nothing. Where a scenario looks the same from several
//! nodes, states that are rotations of each other are one ([`Scenario::rotations`]).
//!
//! # What is not
//! - Where no message can be lost any more, acknowledgements of hops that were taken are sent and arrive at once.
//! - Of a search that ends at its number of states, everything up to some depth is covered; from there on only some states are,
//!   each along one way ([`Exploration::is_complete`] says which it was).
//! - Messages that come *between* two deadlines of a node meet it at the earlier one: orders of timers that depend on when,
//!   between those, a message came are missing; so are other jitters and estimated time-outs.
//! - Every node can be reached: none becomes a client of another. Options of routing are at their defaults, and tables are
//!   Chord's, which on such small rings have two to four fingers. Clients, options and other tables are left to the swarm.
//! - Messages are handed over as they are: neither their wire form nor handshakes of links are part of it.
//! - Living nodes are never taken for dead: pauses and partitions are left to the random scenarios.
//! - Of the dictionary: that ranges are acquired is covered in every scenario, but there are items only where a [`Question`] writes
//!   some, few and small; so hand-overs in several messages, sweeps that compare copies, and removed keys are left to
//!   the random scenarios.
//! - That messages do not breed ([`core::duplicates`](crate::core::duplicates)) is not checked here: few are lost. The random
//!   scenarios count duplicates.
//! - Links do not close while idle, and the crash of a node is seen by each neighbour, sooner or later.
//! - Two states with the same digest by accident: at n states, with a chance of about n²/2⁶⁵ (10⁻⁷ for a million).
//! - Networks larger than the scenarios', and paths longer than their bounds.

mod closing;
mod describe;
mod scenario;
mod search;
mod state;
mod step;

pub use closing::CLOSING_ROUNDS_MAX;
pub use scenario::{Bounds, Question, Scenario};
pub use search::{Exploration, Finding, explore, replay};
pub use state::NEAR_MAX;
pub use step::Step;
