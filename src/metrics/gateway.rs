//! The numbers of a gateway.
//!
//! In: a snapshot. Out: a line for each core and number. Always: the names follow from those of the snapshot.

use super::text::Text;
use im_gateway::Snapshot;

/// Gauges among the gateway's numbers; the others are counters.
const GAUGES: [&str; 7] = [
    "connections",
    "websocket_connections",
    "signed_in",
    "forward_backlog",
    "forward_backlog_bytes",
    "lane_depth",
    "lane_bytes",
];

pub fn print(out: &mut Text, gateway: &Snapshot) {
    out.labelled(("im_gateway_driver", "gauge"), "driver", [(gateway.driver, 1)]);
    let Some(first) = gateway.cores.first() else { return };
    for (at, (name, _)) in first.counters().into_iter().enumerate() {
        let (kind, suffix) = if GAUGES.contains(&name) { ("gauge", "") } else { ("counter", "_total") };
        let of_cores = gateway.cores.iter().map(|core| core.counters()[at].1).enumerate();
        out.labelled((&format!("im_gateway_{name}{suffix}"), kind), "core", of_cores);
    }
    let closes = first.closes.iter().map(|(code, _)| {
        let of_core = |core: &im_gateway::CoreSnapshot| {
            core.closes.iter().filter(|(name, _)| name == code).map(|(_, count)| count).sum()
        };
        (code, gateway.sum(of_core))
    });
    out.labelled(("im_gateway_closes_total", "counter"), "code", closes);
    out.counter("im_gateway_delivery_breaks_total", gateway.delivery_breaks);
}
