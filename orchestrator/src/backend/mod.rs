//! Backends: how an agent is reached.
