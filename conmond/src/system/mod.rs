//! Many hosts as one system: who is at the far end of what leaves this one, and what all of them have counted.
//!
//! Each controller knows its own containers. What a port sees of a peer on another host is an address: the container's own
//! where networks are routed, else one of that host's, behind which a published port or a masquerade hides it. The first is
//! looked up in the registry; for the second the two hosts compare what both see, the conversation as it is between them
//! ([`crate::nat::Wire`]), and each names its own end. Nothing in the data's path waits for any of it.

pub mod ends;
pub mod matrix;
pub mod resolver;
