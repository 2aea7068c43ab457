//! Events, one line each: a stream has no end after which columns could be aligned.

use conmon::api::{Event, EventKind};

use crate::format::{delay, harmless, time};
use crate::look::Look;
use crate::tone::Tone;

/// An event's line, without its end.
pub fn event(event: &Event, look: Look) -> String {
    let kind = look.paint(tone(event.kind), &format!("{:<17}", event.kind.as_str()));
    let mut line = format!("{}  {kind}  {}", time(event.time), harmless(&event.text));
    if let Some(after) = event.after_seconds {
        line.push_str(&format!("  (after {})", delay(after)));
    }
    if let Some(dropped) = event.dropped {
        line.push_str(&format!("  ({dropped} dropped)"));
    }
    if look.wide {
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

fn tone(kind: EventKind) -> Tone {
    match kind {
        EventKind::PortRefused | EventKind::MonitorLost | EventKind::EngineLost | EventKind::Dropped => {
            Tone::Bad
        }
        EventKind::ContainerStopped | EventKind::PortGone | EventKind::FlowEnded => Tone::Faint,
        EventKind::ContainerStarted | EventKind::EngineConnected => Tone::Good,
        EventKind::ContainerRenamed
        | EventKind::PortTapped
        | EventKind::PortNamed
        | EventKind::MonitorReady
        | EventKind::MonitorAssigned
        | EventKind::FlowBegun => Tone::Accent,
    }
}
