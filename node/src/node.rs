//! The user's API: create a network, join one, send, look up.
