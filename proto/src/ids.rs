//! The ids of the system as types, so that no two of them can be swapped by mistake.
//!
//! In: strings from the wire. Out: checked, cheap-to-clone ids (up to 24 bytes are held without an allocation).
//! Always: a text id is 1 to 64 bytes of `[A-Za-z0-9_-]`, compared byte by byte; so it needs no escaping in a key, a log
//! line, a header or a path (bad input B7, B39).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use compact_str::CompactString;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// The longest text id, in bytes.
pub const ID_BYTES_MAX: usize = 64;

/// A text that is no id: empty, longer than [`ID_BYTES_MAX`], or with a byte outside `[A-Za-z0-9_-]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is 1 to 64 characters of A-Z a-z 0-9 _ -")]
pub struct InvalidId;

fn check(text: &str) -> Result<(), InvalidId> {
    let length_ok = !text.is_empty() && text.len() <= ID_BYTES_MAX;
    let bytes_ok = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if length_ok && bytes_ok { Ok(()) } else { Err(InvalidId) }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(CompactString);

        impl $name {
            /// Checks `text` and makes it an id.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                check(text)?;
                Ok(Self(CompactString::new(text)))
            }

            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&$name> for String {
            fn from(id: &$name) -> String {
                id.0.as_str().to_owned()
            }
        }
    };
}

text_id!(
    /// A user of the app, as named by the subject of its token.
    UserId
);
text_id!(
    /// A device of a user; unique per user only.
    DeviceId
);
text_id!(
    /// A client-made id: `client_message_id` or `command_id`. One name space per (log, sender).
    ClientId
);
text_id!(
    /// A log: a conversation (direct or group) or a user's own log. See [`LogKind`].
    LogId
);

/// What a log is, told by the first character of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// `d`: two users, or one user with oneself. Needs no creation.
    Direct,
    /// `g`: a group, created by its first entry.
    Group,
    /// `u`: a user's own log: read cursors and, later, settings and friends.
    User,
}

/// 1 kind character and 22 characters of base64url (128 bits of SHA-256).
const LOG_ID_BYTES: usize = 23;

impl LogId {
    /// The direct conversation of `a` and `b`; the same for both, and for `a == b` the conversation with oneself.
    pub fn direct(a: &UserId, b: &UserId) -> Self {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        Self::derive('d', &[low.as_str(), high.as_str()])
    }

    /// The group that `creator` makes with `command_id`. The same pair gives the same group, so creation repeats safely.
    pub fn group(creator: &UserId, command_id: &ClientId) -> Self {
        Self::derive('g', &[creator.as_str(), command_id.as_str()])
    }

    /// The user's own log.
    pub fn user(user: &UserId) -> Self {
        Self::derive('u', &[user.as_str()])
    }

    /// `None` for an id that no log can have.
    pub fn kind(&self) -> Option<LogKind> {
        if self.0.len() != LOG_ID_BYTES {
            return None;
        }
        match self.0.as_bytes()[0] {
            b'd' => Some(LogKind::Direct),
            b'g' => Some(LogKind::Group),
            b'u' => Some(LogKind::User),
            _ => None,
        }
    }

    /// The kind character, then base64url of the first 16 bytes of SHA-256 over each part behind its length (one byte:
    /// an id has at most 64).
    fn derive(kind: char, parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        hash.update([kind as u8]);
        for part in parts {
            hash.update([part.len() as u8]);
            hash.update(part.as_bytes());
        }
        let mut text = CompactString::const_new("");
        text.push(kind);
        text.push_str(&URL_SAFE_NO_PAD.encode(&hash.finalize()[..16]));
        debug_assert_eq!(text.len(), LOG_ID_BYTES);
        Self(text)
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// A place in a log: 1, 2, 3 … without a gap. 0 stands before the first entry.
    Seq
);
number_id!(
    /// The count of countable messages of a log up to an entry. unread = ordinal(head) − ordinal(read).
    Ordinal
);
number_id!(
    /// Names one history of a store. It changes when a backup is restored; compared for equality only.
    Epoch
);
number_id!(
    /// A user's inbox: rises with everything that moves for the user, not always by one.
    InboxVersion
);
number_id!(
    /// A login of a device; a newer one has a higher one (contract C7).
    Generation
);
number_id!(
    /// A connection of one gateway boot: the core in the upper 16 bits, a counter below. Never used twice in a boot.
    ConnectionId
);

impl Seq {
    /// The place behind this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl ConnectionId {
    pub fn new(core: u16, counter: u64) -> Self {
        assert!(counter < 1 << 48, "a core opened 2^48 connections");
        Self(u64::from(core) << 48 | counter)
    }

    /// The core that owns the connection.
    pub fn core(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_1_to_64_plain_characters() {
        for good in ["a", "A-Z_09", &"x".repeat(64)] {
            assert!(UserId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\n", "é", "a:b", "a/b", "\0", &"x".repeat(65)] {
            assert_eq!(UserId::parse(bad), Err(InvalidId), "{bad:?}");
        }
    }

    #[test]
    fn a_direct_conversation_is_the_same_from_both_sides_and_differs_from_every_other() {
        let [a, b, ab] = ["a", "b", "ab"].map(|t| UserId::parse(t).unwrap());
        assert_eq!(LogId::direct(&a, &b), LogId::direct(&b, &a));
        assert_ne!(LogId::direct(&a, &b), LogId::direct(&a, &ab));
        assert_ne!(LogId::direct(&a, &a), LogId::user(&a));
        assert_eq!(LogId::direct(&a, &a).kind(), Some(LogKind::Direct));
        assert_eq!(LogId::user(&a).kind(), Some(LogKind::User));
        assert_eq!(LogId::parse("group").unwrap().kind(), None);
    }

    #[test]
    fn parts_cannot_run_into_each_other() {
        let group = |u: &str, c: &str| LogId::group(&UserId::parse(u).unwrap(), &ClientId::parse(c).unwrap());
        assert_ne!(group("ab", "c"), group("a", "bc"));
    }

    #[test]
    fn a_connection_id_names_its_core() {
        let id = ConnectionId::new(513, 7);
        assert_eq!((id.core(), id.0 & 0xffff_ffff_ffff), (513, 7));
    }
}
