//! The program `plasmavmc`.

fn main() {}
