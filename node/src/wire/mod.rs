//! The bounded binary form of messages, in length-prefixed frames.
