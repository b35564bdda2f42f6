//! What each part is started with, by the configuration.
//!
//! In: a checked [`Config`]. Out: the configurations of gateway and logic. Always: what the configuration does not name keeps
//! the part's own default.

use super::{Config, Driver};
use crate::clock;
use im_codec::SessionLimits;
use im_gateway::{GatewayConfig, WebsocketConfig};
use im_logic::LogicConfig;
use std::net::SocketAddr;

impl Config {
    /// What the gateway is started with. `http`: where the page is, whose tabs may connect.
    pub fn gateway_config(&self, http: SocketAddr) -> GatewayConfig {
        let gateway = &self.gateway;
        GatewayConfig {
            tcp: self.listen.tcp,
            websocket: Some(WebsocketConfig { address: self.listen.websocket, origins: self.origins(http) }),
            cores: usize::from(gateway.cores),
            wall_clock_ms: clock::now_ms,
            driver: match gateway.driver {
                Driver::Auto => im_gateway::Driver::Auto,
                Driver::Uring => im_gateway::Driver::Uring,
                Driver::Epoll => im_gateway::Driver::Epoll,
            },
            session: SessionLimits {
                first_byte_timeout_ms: gateway.first_byte_timeout_ms.into(),
                sign_in_timeout_ms: gateway.sign_in_timeout_ms.into(),
                frame_timeout_ms: gateway.frame_timeout_ms.into(),
                heartbeat_interval_ms: gateway.heartbeat_interval_ms,
                idle_timeout_ms: gateway.idle_timeout_ms,
                frame_bytes_max_before_sign_in: gateway.frame_bytes_max_before_sign_in,
                frame_bytes_max: gateway.frame_bytes_max,
                body_bytes_max: gateway.body_bytes_max as usize,
                command_rate_per_s: gateway.command_rate_per_s,
                command_burst: gateway.command_burst,
            },
            connections_max: gateway.connections_max as usize,
            accept_rate_per_address_per_s: gateway.accept_rate_per_address_per_s,
            accept_burst_per_address: gateway.accept_burst_per_address,
            unauthenticated_per_address_max: gateway.unauthenticated_per_address_max,
            output_bytes_max: gateway.output_bytes_max as usize,
            output_frames_max: gateway.output_frames_max as usize,
            stall_timeout_ms: gateway.stall_timeout_ms.into(),
            faults: im_gateway::Faults::from_env(),
            ..GatewayConfig::default()
        }
    }

    /// What the workers and request handlers are started with.
    pub fn logic_config(&self) -> LogicConfig {
        let logic = &self.logic;
        let default = LogicConfig::default();
        LogicConfig {
            wall_clock_ms: clock::now_ms,
            batch_records_max: logic.batch_records_max as usize,
            logs_cached_max: logic.logs_cached_max as usize,
            commands_remembered_max: logic.commands_remembered_max as usize,
            upstream_age_max_ms: logic.upstream_age_max_ms,
            send_rate_per_user_per_s: logic.send_rate_per_user_per_s,
            send_burst_per_user: logic.send_burst_per_user,
            receipts_members_max: logic.receipts_members_max as usize,
            large_members_min: logic.large_members_min as usize,
            limits: im_logic::Limits {
                body_bytes_max: self.gateway.body_bytes_max as usize,
                group_members_max: logic.group_members_max as usize,
                ..default.limits
            },
            ..default
        }
    }
}
