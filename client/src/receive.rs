//! One frame of the server, or one missing answer, to the part of the client it concerns.
//!
//! In: decoded frames and requests that timed out. Out: calls of the parts. Always: a frame with an id nobody waits for, and
//! one with a body this client does not know, change nothing.

use crate::connect::Phase;
use crate::core::Core;
use crate::event::{Answer, Cause, Event, Recipient, Ticket};
use crate::wire::Asked;
use crate::write::{QueuedWrite, Write};
use bytes::Bytes;
use im_proto::client::server_frame::Body;
use im_proto::client::{self, ErrorClass, ErrorCode, entry};
use im_proto::{ClientId, Epoch, Generation, LogId, LogKind, Seq, UserId};

impl Core {
    pub(crate) fn on_frame(&mut self, frame: client::ServerFrame, now_ms: u64) {
        if frame.request_id == 0 {
            let lost = self.loses_push.as_mut().is_some_and(|loses| loses(&frame));
            if let (Some(body), false) = (frame.body, lost) {
                self.on_push(body, now_ms);
            }
            return;
        }
        let Some(asked) = self.wire.answered(frame.request_id) else {
            self.counters.answers_unasked += 1;
            return;
        };
        match frame.body {
            Some(Body::Error(error)) => self.on_error(frame.request_id, asked, error, now_ms),
            Some(body) => self.on_answer(asked, body, now_ms),
            None => self.on_unknown_answer(frame.request_id, asked, now_ms),
        }
    }

    /// No answer in time: like one that says so.
    pub(crate) fn on_time_out(&mut self, request_id: u64, asked: Asked, now_ms: u64) {
        let error = client::Error {
            class: ErrorClass::Unknown.into(),
            code: ErrorCode::TimedOut.into(),
            ..client::Error::default()
        };
        self.on_error(request_id, asked, error, now_ms);
    }

    /// The server is newer than this client. The app's request ends with it; what the client needs itself is asked again.
    fn on_unknown_answer(&mut self, request_id: u64, asked: Asked, now_ms: u64) {
        let ticket = match asked {
            Asked::Request(ticket) => self.requests.done(ticket).then_some(ticket),
            Asked::Send { conversation, id } | Asked::ToGroup { conversation, id } => {
                self.outbox.acked(&conversation, &id).map(|write| write.ticket)
            }
            Asked::SignIn | Asked::Pull(_) | Asked::Sync(_) => return self.on_time_out(request_id, asked, now_ms),
        };
        self.events.extend(ticket.map(|ticket| Event::Answered { ticket, answer: Answer::Unknown }));
    }

    fn on_push(&mut self, body: Body, now_ms: u64) {
        match body {
            Body::Entry(pushed) => self.on_entry(pushed),
            Body::Receipt(moved) => {
                let (conversation, user) = (LogId::parse(&moved.conversation_id), UserId::parse(&moved.user_id));
                if let (Ok(conversation), Ok(user)) = (conversation, user) {
                    self.events.push_back(Event::Receipt { conversation, user, read_seq: Seq(moved.read_seq) });
                }
            }
            Body::SyncHint(hint) => self.sync.hint(hint.inbox_version),
            Body::Kicked(kicked) => {
                let generation = Generation(kicked.generation);
                self.link.kicked(kicked.reason());
                self.events.push_back(Event::Kicked { reason: kicked.reason(), generation });
            }
            Body::Closing(closing) => {
                self.end_link(Cause::Closed { code: closing.code }, closing.reconnect_after_ms, now_ms);
            }
            _ => {}
        }
    }

    fn on_entry(&mut self, pushed: client::EntryPushed) {
        let (Ok(log), Some(entry)) = (LogId::parse(&pushed.conversation_id), pushed.entry) else { return };
        if pushed.epoch != self.epoch || self.link.phase != Phase::Up {
            return;
        }
        if let Some((log, entry)) = self.sync.admit(log, entry, &mut self.gaps) {
            self.gaps.apply(log, entry, &mut self.events);
        }
    }

    fn on_answer(&mut self, asked: Asked, body: Body, now_ms: u64) {
        match (asked, body) {
            (Asked::SignIn, Body::SignedIn(signed_in)) => self.on_signed_in(signed_in, now_ms),
            (Asked::Send { conversation, id }, Body::SendAck(ack)) => self.on_ack(conversation, id, ack),
            (Asked::ToGroup { conversation, id }, body) => {
                if let Some(write) = self.outbox.acked(&conversation, &id) {
                    self.answered(write.ticket, body);
                }
            }
            (Asked::Pull(log), Body::Pulled(pulled)) => {
                self.gaps.pulled(log, pulled, &mut self.events, now_ms, &mut self.rng);
            }
            (Asked::Sync(attempt), Body::Synced(synced)) => {
                if self.sync.expects(attempt) {
                    let from_now = self.begins_now();
                    self.sync.page(synced, &self.user_log, from_now, &mut self.gaps, &mut self.events);
                }
            }
            (Asked::Request(ticket), body) => {
                if self.requests.done(ticket) {
                    self.answered(ticket, body);
                }
            }
            // An answer to something else than was asked: the server's fault, the link is of no use.
            _ => self.end_link(Cause::BadFrame, 0, now_ms),
        }
    }

    fn on_signed_in(&mut self, signed_in: client::SignedIn, now_ms: u64) {
        if signed_in.user_id != self.config.user.as_str() {
            return self.end_link(Cause::WrongUser, 0, now_ms);
        }
        self.link.phase = Phase::Up;
        self.heartbeat.start(signed_in.heartbeat_interval_ms, signed_in.idle_timeout_ms, now_ms);
        self.wire.set_frame_bytes_max(signed_in.frame_bytes_max);
        self.outbox.set_pending_max(signed_in.pending_sends_max);
        self.events.push_back(Event::SignedIn {
            epoch: Epoch(signed_in.epoch),
            generation: Generation(signed_in.generation),
            user_log: LogId::parse(&signed_in.user_log_id).ok(),
        });
        self.outbox.restart();
        self.requests.restart();
        self.sync.restart();
        if self.epoch != 0 && self.epoch != signed_in.epoch {
            self.reset();
        }
        self.epoch = signed_in.epoch;
        self.gaps.restart();
    }

    /// The history of the store was replaced.
    fn reset(&mut self) {
        self.gaps.forget();
        self.sync.forget();
        self.events.push_back(Event::Reset);
    }

    fn on_ack(&mut self, conversation: LogId, id: ClientId, ack: client::SendAck) {
        let Some(QueuedWrite { ticket, what, .. }) = self.outbox.acked(&conversation, &id) else { return };
        let Write::Send { to, body } = what else {
            // One id for a group command and a send, and the server took both: its fault, and no answer to this one.
            return self.events.push_back(Event::Answered { ticket, answer: Answer::Unknown });
        };
        self.events.push_back(Event::Acked {
            ticket,
            conversation: conversation.clone(),
            client_message_id: id.clone(),
            epoch: Epoch(ack.epoch),
            seq: Seq(ack.seq),
            server_time_ms: ack.server_time_ms,
        });
        // The server does not push to a connection what its ack tells: the ack stands for the entry.
        let Some(to_user_id) = self.receiver(to) else {
            return self.sync.admit_seq(conversation, Seq(ack.seq), &mut self.gaps);
        };
        let entry = self.own_entry(&id, to_user_id, body, &ack);
        if let Some((log, entry)) = self.sync.admit(conversation, entry, &mut self.gaps) {
            self.gaps.apply(log, entry, &mut self.events);
        }
    }

    /// Whom the entry of a send names as its receiver. `None`: the log alone knows.
    fn receiver(&self, to: Recipient) -> Option<String> {
        match to {
            Recipient::User(user) => Some((&user).into()),
            Recipient::Conversation(log) if log.kind() == Some(LogKind::Direct) => self.gaps.peer_of(&log),
            Recipient::Conversation(_) => Some(String::new()),
        }
    }

    fn own_entry(&self, id: &ClientId, to_user_id: String, body: Bytes, ack: &client::SendAck) -> client::Entry {
        client::Entry {
            seq: ack.seq,
            ordinal: ack.ordinal,
            server_time_ms: ack.server_time_ms,
            sender_user_id: (&self.config.user).into(),
            client_id: id.into(),
            content: Some(entry::Content::Message(client::Message { body, to_user_id })),
        }
    }

    /// The final answer to a command other than a send.
    fn answered(&mut self, ticket: Ticket, body: Body) {
        let answer = match body {
            Body::CommandAck(ack) => Answer::Done(ack),
            Body::ReadMarked(marked) => Answer::ReadMarked(marked),
            Body::Members(members) => Answer::Members(members),
            Body::Pulled(pulled) => Answer::Pulled(pulled),
            _ => Answer::Unknown,
        };
        if let Answer::Done(ack) = &answer
            && let Ok(group) = LogId::parse(&ack.conversation_id)
        {
            self.gaps.saw_head(group, Seq(ack.seq));
        }
        self.events.push_back(Event::Answered { ticket, answer });
    }

    fn on_error(&mut self, request_id: u64, asked: Asked, error: client::Error, now_ms: u64) {
        let is_final = error.class() == ErrorClass::Final;
        self.counters.repeatable_errors += u64::from(!is_final);
        let is_reset = is_final && error.code() == ErrorCode::Reset;
        match asked {
            Asked::SignIn => {
                let code = client::CloseCode::BadToken.into();
                let cause = if is_final { Cause::Closed { code } } else { Cause::Silent };
                self.end_link(cause, error.retry_after_ms, now_ms);
            }
            Asked::Send { conversation, .. } | Asked::ToGroup { conversation, .. } => {
                let refused = self.outbox.failed(conversation, request_id, error, now_ms, &mut self.rng);
                self.events.extend(refused);
            }
            Asked::Request(ticket) if is_final => {
                if self.requests.done(ticket) {
                    self.events.push_back(Event::RequestRefused { ticket, refusal: error.into() });
                }
            }
            Asked::Request(ticket) => self.requests.failed(ticket, error.retry_after_ms, now_ms, &mut self.rng),
            Asked::Pull(log) if is_final => {
                self.gaps.pull_refused(log, error.into(), &mut self.events);
                if is_reset {
                    self.reset();
                }
            }
            Asked::Pull(log) => self.gaps.pull_failed(log, error.retry_after_ms, now_ms, &mut self.rng),
            Asked::Sync(attempt) if !self.sync.expects(attempt) => {}
            Asked::Sync(_) if is_reset && !self.sync.token().is_empty() => self.reset(),
            Asked::Sync(_) => self.sync.failed(error.retry_after_ms, now_ms, &mut self.rng),
        }
    }
}
