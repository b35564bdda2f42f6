//! What an operator should know of a server that we depend on: settings that weaken what it is for.
//!
//! In: what an adapter saw when it looked. Out: findings by name, each with how to mend it. Always: an unsafe one is a
//! reason to refuse the server, unless the operator allowed it by its name.

use std::fmt::{Display, Formatter};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The adapter refuses the server.
    Unsafe,
    /// Unsafe but allowed, or a loss that is repaired at a price.
    Risk,
    /// Good to know.
    Note,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What an allow list calls it, as `redis.eviction`.
    pub name: &'static str,
    pub severity: Severity,
    pub found: String,
    pub mend: String,
}

impl Finding {
    pub fn new(name: &'static str, severity: Severity, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, severity, found: found.into(), mend: mend.into() }
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; {}", self.name, self.found, self.mend)
    }
}

/// The worst first; what is unsafe but allowed is a risk.
pub fn judge(mut findings: Vec<Finding>, allow: &[String]) -> Vec<Finding> {
    for finding in &mut findings {
        if finding.severity == Severity::Unsafe && allow.iter().any(|name| name == finding.name) {
            finding.severity = Severity::Risk;
        }
    }
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// The reason to refuse the server, if there is one; the others are told to the operator.
pub fn refuse_unsafe(findings: Vec<Finding>, allow: &[String]) -> Result<(), Finding> {
    for finding in judge(findings, allow) {
        match finding.severity {
            Severity::Unsafe => return Err(finding),
            Severity::Risk => tracing::warn!(%finding, "a setting to know of"),
            Severity::Note => tracing::info!(%finding, "a setting to know of"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsafe_setting_is_refused_unless_it_is_allowed_by_its_own_name() {
        let found =
            || vec![Finding::new("a.note", Severity::Note, "", ""), Finding::new("a.bad", Severity::Unsafe, "", "")];
        assert_eq!(refuse_unsafe(found(), &[]).unwrap_err().name, "a.bad");
        assert!(refuse_unsafe(found(), &["a.note".to_owned()]).is_err());
        assert!(refuse_unsafe(found(), &["a.bad".to_owned()]).is_ok());
        assert_eq!(judge(found(), &[])[0].name, "a.bad", "the worst first");
    }
}
