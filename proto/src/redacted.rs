//! `Debug` for the messages that hold a token or a body: the shape is printed, the secret is not (bad input B43).
//!
//! In: messages whose derived `Debug` is left out in `tests/generated.rs`. Out: their ids and the length of the rest. Always:
//! no token, body or encoded frame can reach a log by printing a message, however deep it lies in another.

use crate::{client, internal, services};
use std::fmt::{Debug, Formatter, Result};

/// Shows fields by value, and bytes by their count alone.
macro_rules! redacted {
    ($message:ty { $($shown:ident),* ; $($hidden:ident),* }) => {
        impl Debug for $message {
            fn fmt(&self, f: &mut Formatter<'_>) -> Result {
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($shown), &self.$shown))*
                    $(.field(stringify!($hidden), &format_args!("{} bytes", self.$hidden.len())))*
                    .finish()
            }
        }
    };
}

/// Left out with its message, though it hides nothing.
impl Debug for client::send::To {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (Self::UserId(id) | Self::ConversationId(id)) = self;
        f.write_str(id)
    }
}

redacted!(client::SignIn { protocol_version, device_id, platform, client_run, dial; token });
redacted!(client::Send { to, client_message_id, after; body });
redacted!(client::MessageBody { content_type; text, data });
redacted!(client::Message { to_user_id; body });
redacted!(internal::Upstream { log_id, origin, trace; frame });
redacted!(internal::Answer { connection_id, request_id, inbox; frame });
redacted!(internal::Push { targets; frame });
redacted!(internal::LargePush { log_id, seq, members_seq, members_seq_before, joined, left, answered_connection_id; frame });
redacted!(services::ReadCall { user_id; frame });
redacted!(services::ReadAnswer { inbox_version, large_heads; frame });
redacted!(internal::StoredEntry { members_seq, members, partition, offset_after; entry, content_hash });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{ClientFrame, client_frame::Command};

    #[test]
    fn printing_a_frame_shows_neither_its_token_nor_its_body() {
        let sign_in = client::SignIn { token: "canary-token".into(), device_id: "d".into(), ..Default::default() };
        let send = client::Send { body: "canary-body".into(), client_message_id: "m".into(), ..Default::default() };
        for command in [Command::SignIn(sign_in), Command::Send(send)] {
            let printed = format!("{:?}", ClientFrame { request_id: 1, command: Some(command), ..Default::default() });
            assert!(!printed.contains("canary") && printed.contains("bytes"), "{printed}");
        }
    }
}
