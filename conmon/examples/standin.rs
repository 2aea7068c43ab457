//! A stand-in for conmond with made-up traffic, for work on `conmonctl` without root and containers:
//! `cargo run --example standin -- /tmp/standin.sock`, and elsewhere `conmonctl --socket /tmp/standin.sock top`.
//! A second argument asks for that many pairs.

#[path = "../tests/support/answers.rs"]
#[allow(dead_code, reason = "shared with tests")]
mod answers;
#[path = "../tests/support/standin.rs"]
mod standin;

use std::path::PathBuf;

use standin::{Behaviour, serve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let socket = PathBuf::from(arguments.next().ok_or("usage: standin SOCKET [PAIRS]")?);
    let many = match arguments.next() {
        Some(number) => Some(number.to_string_lossy().parse()?),
        None => None,
    };
    if let Err(error) = std::fs::remove_file(&socket)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error.into());
    }
    serve(&socket, Behaviour { many, ..Behaviour::default() }).await?;
    Ok(())
}
