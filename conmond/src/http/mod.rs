//! The HTTP API: owns the sockets it is served on and everything a reader can do to them. It asks a [`Source`] (the
//! controller) and nothing else, never the kernel or the engine.

mod source;

pub use source::{
    ClassTotals, EachWay, End, HookRow, PairRow, PortRow, ProtocolTotals, SelfMetrics, SetRow, Source,
    Subscription, Usage,
};
