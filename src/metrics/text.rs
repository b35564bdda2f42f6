//! The text format of Prometheus.
//!
//! In: names and numbers. Out: one `# TYPE` line a name, then its lines. Always: a name is told once.

use im_observe::Histogram;
use std::fmt::{Display, Write as _};

#[derive(Default)]
pub struct Text(String);

impl Text {
    pub fn counter(&mut self, name: &str, value: u64) {
        self.begin(name, "counter");
        self.line(format_args!("{name} {value}"));
    }

    pub fn gauge(&mut self, name: &str, value: u64) {
        self.begin(name, "gauge");
        self.line(format_args!("{name} {value}"));
    }

    /// One line for each value of the label.
    pub fn labelled<L: Display>(
        &mut self,
        (name, kind): (&str, &str),
        label: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) {
        self.begin(name, kind);
        for (of, value) in values {
            self.line(format_args!("{name}{{{label}=\"{of}\"}} {value}"));
        }
    }

    pub fn histogram(&mut self, name: &str, histogram: &Histogram) {
        self.begin(name, "histogram");
        let (below, all) = histogram.cumulated();
        for (bound, count) in below {
            self.line(format_args!("{name}_bucket{{le=\"{bound}\"}} {count}"));
        }
        self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {all}"));
        self.line(format_args!("{name}_sum {}", histogram.sum()));
        self.line(format_args!("{name}_count {all}"));
    }

    pub fn finish(self) -> String {
        self.0
    }

    fn begin(&mut self, name: &str, kind: &str) {
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{line}");
    }
}
