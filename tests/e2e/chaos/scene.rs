//! A cluster under chaos: own services, a proxy on every way between the processes, and the load of the other tests.
//!
//! In: nothing. Out: processes, services and links that a fault can strike. Always: when no fault strikes, everything is
//! there and every link passes bytes on at once; a role's way to a service is no other's, but for Kafka's, where clients come
//! back to the one port that the broker names.

use super::own_services::{OwnServices, Service};
use super::proxy::{Proxy, Trouble};
use crate::harness::cluster::Places;
use crate::harness::deployment::{Deployment, Services};
use crate::harness::endpoint::Endpoint;
use crate::harness::server::{Server, Settings};
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use std::fmt;
use std::net::SocketAddr;
use tokio::task::block_in_place;

pub const WORKERS: [&str; 2] = ["worker 0", "worker 1"];
pub const GATEWAYS: [&str; 2] = ["gateway 0", "gateway 1"];
const ALL: &str = "all";

/// From, to. A gateway knows neither MySQL nor MongoDB.
const WAYS: [(&str, &str); 14] = [
    (ALL, "kafka"),
    (WORKERS[0], "redis"),
    (WORKERS[1], "redis"),
    (GATEWAYS[0], "redis"),
    (GATEWAYS[1], "redis"),
    (WORKERS[0], "mysql"),
    (WORKERS[1], "mysql"),
    (WORKERS[0], "mongodb"),
    (WORKERS[1], "mongodb"),
    ("gateways", WORKERS[0]),
    ("gateways", WORKERS[1]),
    ("workers", GATEWAYS[0]),
    ("workers", GATEWAYS[1]),
    ("clients", "gateways"),
];

const SERVICES: [(&str, Service); 4] =
    [("kafka", Service::Kafka), ("redis", Service::Redis), ("mysql", Service::Mysql), ("mongodb", Service::Mongo)];

pub struct Scene {
    /// Before the services: what it has in them is removed first.
    pub server: Server,
    pub links: Links,
    pub services: OwnServices,
    settings: Settings,
}

pub struct Links(Vec<Link>);

/// A way between two processes, or of all that have no way of their own.
pub struct Link {
    pub from: &'static str,
    pub to: &'static str,
    proxy: Proxy,
}

impl Link {
    pub fn make(&self, trouble: Trouble) {
        self.proxy.make(trouble);
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

impl Links {
    async fn start() -> Self {
        let mut links = Vec::new();
        for (from, to) in WAYS {
            links.push(Link { from, to, proxy: Proxy::start(Vec::new()).await });
        }
        Self(links)
    }

    /// Every way there.
    pub fn to(&self, to: &str) -> impl Iterator<Item = &Link> {
        self.0.iter().filter(move |link| link.to == to)
    }

    /// One way; or all that lead where it does, as if the network before it were in trouble.
    pub fn choose(&self, rng: &mut StdRng) -> Vec<&Link> {
        let link = self.0.choose(rng).unwrap();
        if rng.random_ratio(1, 4) { self.to(link.to).collect() } else { vec![link] }
    }

    /// The way of one role to one service.
    pub fn choose_of_a_role(&self, rng: &mut StdRng) -> &Link {
        let is_a_roles = |link: &&Link| WORKERS.contains(&link.from) || GATEWAYS.contains(&link.from);
        self.0.iter().filter(is_a_roles).choose(rng).unwrap()
    }

    /// The way of one.
    pub fn of(&self, from: &str, to: &str) -> &Link {
        self.to(to).find(|link| link.from == from).unwrap_or_else(|| panic!("no way from {from} to {to}"))
    }

    fn lead(&self, to: &str, targets: &[SocketAddr]) {
        self.to(to).for_each(|link| link.proxy.lead_to(targets.to_vec()));
    }

    fn address(&self, from: &str, to: &str) -> SocketAddr {
        self.of(from, to).proxy.address
    }
}

impl Scene {
    pub async fn start(settings: Settings) -> Self {
        let links = Links::start().await;
        let kafka = links.address(ALL, "kafka");
        let services = block_in_place(|| OwnServices::start(kafka.port()));
        let server = block_in_place(|| serve(&links, &services, settings.clone()));
        Self { server, links, services, settings }
    }

    /// A deployment that knows nothing of the one before.
    pub fn renew(&mut self) {
        self.server = block_in_place(|| serve(&self.links, &self.services, self.settings.clone()));
    }
}

/// Leads every link to where it belongs.
fn serve(links: &Links, services: &OwnServices, settings: Settings) -> Server {
    for (name, service) in SERVICES {
        links.lead(name, &[services.address(service)]);
    }
    let by_tests = found_by(ALL, links, services);
    let mut places = Places::direct(&by_tests);
    for number in 0..2 {
        links.lead(WORKERS[number], &[places.workers[number].rpc]);
        links.lead(GATEWAYS[number], &[places.gateways[number].rpc]);
        places.questions[number] = links.address("gateways", WORKERS[number]);
        places.deliveries[number] = links.address("workers", GATEWAYS[number]);
        places.workers_find[number] = found_by(WORKERS[number], links, services);
        places.gateways_find[number] = found_by(GATEWAYS[number], links, services);
    }
    let doors = places.gateways.map(|at| Endpoint::of_this_run(at.tcp, at.websocket));
    links.lead("gateways", &doors.map(Endpoint::socket));
    let mut server = Server::start_cluster_at(settings, Deployment::new(by_tests), &places);
    // One address for both gateways, as behind a load balancer.
    let clients = links.address("clients", "gateways");
    server.set_doors(vec![Endpoint::of_this_run(clients, clients)]);
    server
}

/// By the ways that the role has; it does not use what it has no way to.
fn found_by(role: &str, links: &Links, services: &OwnServices) -> Services {
    let [kafka, redis, mysql, mongodb] = SERVICES.map(|(name, service)| {
        let way = links.to(name).find(|link| link.from == role || link.from == ALL);
        way.map_or_else(|| services.address(service), |link| link.proxy.address)
    });
    Services {
        kafka: kafka.to_string(),
        redis: format!("redis://{redis}/"),
        mysql: format!("mysql://im:im@{mysql}/im"),
        mongodb: format!("mongodb://{mongodb}/?directConnection=true"),
    }
}
