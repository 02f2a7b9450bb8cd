//! The command `p2ps-node`.

fn main() {}
