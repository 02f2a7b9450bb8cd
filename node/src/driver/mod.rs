//! Drivers: clock, sockets and timers for a [`Peer`](crate::peer::Peer).
