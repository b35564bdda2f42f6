//! `/metrics`: what the parts of a role count, as Prometheus text (exposition format 0.0.4).
//!
//! In: the parts that this role has. Out: their numbers, named `im_<part>_<what>`. Always: names only grow; every name is in
//! docs/metrics.md, and a test holds the two together.
//!
//! | file | what it prints |
//! |---|---|
//! | `text` | the format |
//! | `gateway` | connections, forward, receive, send |
//! | `logic` | decide, persist, deliver, requests |
//! | `transit` | what lies between them: queue, delivery streams |

mod gateway;
mod logic;
mod text;
mod transit;

use im_gateway::Snapshot;
use im_logic::LogicMetrics;
use im_storage::ports::Partition;
use text::Text;

/// What a role has; each prints what is there.
#[derive(Default)]
pub struct Parts<'a> {
    pub gateway: Option<&'a Snapshot>,
    pub logic: Option<&'a LogicMetrics>,
    /// Records that no worker has done with, by partition.
    pub lag: Vec<(Partition, u64)>,
    /// Records in the queue of this process.
    pub waiting: Option<usize>,
    #[cfg(feature = "distributed")]
    pub produced: Option<&'a im_storage::kafka::ProducerCounts>,
    #[cfg(feature = "distributed")]
    pub unanswered: Option<&'a crate::join::Unanswered>,
    #[cfg(feature = "distributed")]
    pub streams: Option<&'a im_rpc::DeliveryStreams>,
}

pub fn text(parts: &Parts<'_>) -> String {
    let mut out = Text::default();
    parts.gateway.into_iter().for_each(|snapshot| gateway::print(&mut out, snapshot));
    parts.logic.into_iter().for_each(|metrics| logic::print(&mut out, metrics));
    if parts.logic.is_some() {
        transit::lag(&mut out, &parts.lag);
    }
    parts.waiting.into_iter().for_each(|waiting| out.gauge("im_queue_waiting", waiting as u64));
    #[cfg(feature = "distributed")]
    {
        parts.produced.into_iter().for_each(|counts| transit::produced(&mut out, counts));
        parts.unanswered.into_iter().for_each(|unanswered| transit::unanswered(&mut out, unanswered));
        parts.streams.into_iter().for_each(|streams| transit::streams(&mut out, streams));
    }
    out.finish()
}

#[cfg(test)]
#[cfg(feature = "distributed")]
mod tests {
    use super::*;
    use im_gateway::CoreSnapshot;
    use std::collections::BTreeSet;

    const TABLE: &str = include_str!("../docs/metrics.md");

    /// Every part there is.
    fn everything() -> String {
        let gateway = Snapshot { driver: "epoll", cores: vec![CoreSnapshot::default()], delivery_breaks: 0 };
        let second = std::time::Duration::from_secs(1);
        let options = im_rpc::ConnectOptions { timeout: second, keep_alive: second, tls: None };
        text(&Parts {
            gateway: Some(&gateway),
            logic: Some(&LogicMetrics::default()),
            lag: vec![(Partition(0), 3)],
            waiting: Some(0),
            produced: Some(&Default::default()),
            unanswered: Some(&Default::default()),
            streams: Some(&im_rpc::DeliveryStreams::new(1, &options).unwrap()),
        })
    }

    #[test]
    fn the_table_names_what_is_printed_and_nothing_else() {
        let printed = everything();
        let types = printed.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let printed: BTreeSet<String> = types.map(str::to_owned).collect();
        let rows = TABLE.lines().filter_map(|line| line.strip_prefix("| `im_"));
        let told = rows.filter_map(|row| {
            let (name, rest) = row.split_once('`')?;
            Some(format!("im_{name} {}", rest.split('|').nth(2)?.trim()))
        });
        let told: BTreeSet<String> = told.collect();
        let missing: Vec<_> = printed.difference(&told).collect();
        let gone: Vec<_> = told.difference(&printed).collect();
        assert!(missing.is_empty() && gone.is_empty(), "not in docs/metrics.md: {missing:#?}; not printed: {gone:#?}");
    }

    #[test]
    fn a_name_has_one_type_and_every_line_is_of_the_type_above_it() {
        let printed = everything();
        let mut of = String::new();
        let mut seen = BTreeSet::new();
        for line in printed.lines() {
            if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next()) {
                assert!(seen.insert(name.to_owned()), "{name} twice");
                of = name.to_owned();
            } else {
                assert!(line.starts_with(&of), "{line} below {of}");
                let value = line.rsplit(' ').next().unwrap_or_default();
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }
}
