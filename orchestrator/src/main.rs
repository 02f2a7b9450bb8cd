//! The command `orchestrator`.

fn main() {}
