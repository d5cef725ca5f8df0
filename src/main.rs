//! The `lbaudit` program.

fn main() {}
