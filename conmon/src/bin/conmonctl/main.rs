//! conmonctl
fn main() {}
