//! Events, one line each: a stream has no end after which columns could be aligned.

use conmon::api::Event;

use crate::format::{delay, harmless, time};

/// An event's line, without its end.
pub fn event(event: &Event, wide: bool) -> String {
    let mut line = format!("{}  {:<17}  {}", time(event.time), event.kind.as_str(), harmless(&event.text));
    if let Some(after) = event.after_seconds {
        line.push_str(&format!("  (after {})", delay(after)));
    }
    if let Some(dropped) = event.dropped {
        line.push_str(&format!("  ({dropped} dropped)"));
    }
    if wide {
        line.push_str(&format!("  sequence={}", event.sequence));
        let fields = [
            ("container", &event.container),
            ("tenant", &event.tenant),
            ("network", &event.network),
            ("interface", &event.interface),
            ("monitor", &event.monitor),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                line.push_str(&format!("  {name}={}", harmless(value)));
            }
        }
    }
    line
}
