//! Deliveries of one batch, gathered by gateway.
//!
//! In: answers, and frames with their connections. Out: one list for each gateway. Always: the deliveries of a gateway keep
//! the order in which they were put in, so that the inbox versions that they carry join; no frame is encoded if nobody
//! gets it.

use crate::admit::Origin;
use crate::frame;
use crate::worker::Told;
use bytes::Bytes;
use im_proto::TraceId;
use im_proto::internal::{self, InboxMove, Target, delivery::Kind};
use im_storage::ports::{GatewayBoot, Login, Moved};

#[derive(Default)]
pub(super) struct Outbox {
    gateways: Vec<Gateway>,
    pub answers: usize,
    pub push_targets: usize,
    pub large_pushes: usize,
}

struct Gateway {
    boot: GatewayBoot,
    deliveries: Vec<internal::Delivery>,
    /// Who gets the frame that is being addressed.
    targets: Vec<Target>,
}

impl Outbox {
    /// The next frame goes to these logins, but not to the connection that gets an answer instead.
    pub fn address(&mut self, logins: &[Login], answered: Option<Origin>, inbox: Option<InboxMove>) {
        for login in logins {
            let is_answered =
                answered.is_some_and(|origin| origin.gateway == login.gateway && origin.connection == login.connection);
            if !is_answered {
                self.gateway(login.gateway).targets.push(Target { connection_id: login.connection.0, inbox });
                self.push_targets += 1;
            }
        }
    }

    /// The frame itself, made only if it was addressed to somebody.
    pub fn push(&mut self, trace: Option<TraceId>, frame: impl FnOnce() -> Bytes) {
        let mut addressed = self.gateways.iter_mut().filter(|gateway| !gateway.targets.is_empty()).peekable();
        if addressed.peek().is_none() {
            return;
        }
        let frame = frame();
        for gateway in addressed {
            let push = internal::Push { frame: frame.clone(), targets: std::mem::take(&mut gateway.targets) };
            let trace = trace.map(TraceId::to_wire);
            gateway.deliveries.push(internal::Delivery { kind: Some(Kind::Push(push)), trace });
        }
    }

    /// An entry for all members connected at these gateways, but not for the connection that gets an answer instead.
    pub fn large(
        &mut self,
        gateways: &[GatewayBoot],
        answered: Option<Origin>,
        push: impl FnOnce() -> internal::LargePush,
    ) {
        if gateways.is_empty() {
            return;
        }
        let push = push();
        let trace = answered.and_then(|origin| origin.trace).map(TraceId::to_wire);
        for boot in gateways {
            let answered = answered.filter(|origin| origin.gateway == *boot);
            let answered_connection_id = answered.map_or(0, |origin| origin.connection.0);
            let push = internal::LargePush { answered_connection_id, ..push.clone() };
            self.gateway(*boot).deliveries.push(internal::Delivery { kind: Some(Kind::LargePush(push)), trace });
            self.large_pushes += 1;
        }
    }

    pub fn answer(&mut self, told: Told, inbox: Option<InboxMove>) {
        let Told { origin, body } = told;
        let answer = internal::Answer {
            connection_id: origin.connection.0,
            request_id: origin.request_id,
            frame: frame::of(origin.request_id, body),
            inbox,
        };
        let trace = origin.trace.map(TraceId::to_wire);
        self.gateway(origin.gateway).deliveries.push(internal::Delivery { kind: Some(Kind::Answer(answer)), trace });
        self.answers += 1;
    }

    pub fn into_gateways(self) -> impl Iterator<Item = (GatewayBoot, Vec<internal::Delivery>)> {
        self.gateways.into_iter().map(|gateway| (gateway.boot, gateway.deliveries))
    }

    /// Gateways are few: a search through them beats a hash.
    fn gateway(&mut self, boot: GatewayBoot) -> &mut Gateway {
        let at = self.gateways.iter().position(|gateway| gateway.boot == boot).unwrap_or_else(|| {
            self.gateways.push(Gateway { boot, deliveries: Vec::new(), targets: Vec::new() });
            self.gateways.len() - 1
        });
        &mut self.gateways[at]
    }
}

/// The way of one user's version through `moved`; `None` if it did not move, or if somebody else moved it in between: then
/// the connection is hinted by its next heartbeat.
pub(super) fn inbox_move(moved: &[Moved]) -> Option<InboxMove> {
    let joined = moved.windows(2).all(|pair| pair[0].version == pair[1].previous);
    let (first, last) = (moved.first()?, moved.last()?);
    let did_move = first.previous != last.version;
    (joined && did_move).then_some(InboxMove { previous: first.previous.0, version: last.version.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use im_proto::InboxVersion;

    #[test]
    fn a_move_is_told_only_if_it_is_whole() {
        let moved = |previous, version| Moved { previous: InboxVersion(previous), version: InboxVersion(version) };
        let told = |moves: &[Moved]| inbox_move(moves).map(|inbox| (inbox.previous, inbox.version));
        assert_eq!(told(&[moved(3, 4)]), Some((3, 4)));
        assert_eq!(told(&[moved(3, 4), moved(4, 9)]), Some((3, 9)));
        assert_eq!(told(&[moved(3, 4), moved(5, 6)]), None);
        assert_eq!(told(&[moved(4, 4)]), None);
        assert_eq!(told(&[moved(4, 4), moved(4, 5)]), Some((4, 5)));
    }
}
