//! The line a second on standard error while a case runs.

/// What [`crate::measure::window`] calls each second.
pub fn of(case: &str) -> impl FnMut(u64, u64, u64) + use<> {
    let case = case.to_owned();
    move |second, messages, deliveries| {
        eprintln!("{case}: {second:>3} s  {messages:>8} messages/s  {deliveries:>9} deliveries/s");
    }
}
