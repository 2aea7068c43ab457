//! conmond
fn main() {}
