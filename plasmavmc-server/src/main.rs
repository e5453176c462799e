//! The program `plasmavmc-server`.

fn main() {}
