//! What people read: the terminal summary.
