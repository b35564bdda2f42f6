//! A cluster under chaos: own services, a proxy on every way between the processes, and the load of the other tests.
//!
//! In: nothing. Out: processes, services and links that a fault can strike. Always: when no fault strikes, everything is
//! there and every link passes bytes on at once.

use super::own_services::{OwnServices, Service};
use super::proxy::Proxy;
use crate::harness::cluster::Places;
use crate::harness::deployment::{Deployment, Services};
use crate::harness::endpoint::Endpoint;
use crate::harness::server::{Server, Settings};
use tokio::task::block_in_place;

pub struct Scene {
    /// Before the services: what it has in them is removed first.
    pub server: Server,
    pub links: Vec<Link>,
    pub services: OwnServices,
}

/// A way between two processes.
pub struct Link {
    pub name: &'static str,
    pub proxy: Proxy,
}

impl Scene {
    pub async fn start() -> Self {
        let mut links = Vec::new();
        let mut link = async |name| {
            let proxy = Proxy::start(Vec::new()).await;
            let address = proxy.address;
            links.push(Link { name, proxy });
            address
        };
        let kafka = link("kafka").await;
        link("redis").await;
        link("mysql").await;
        link("mongodb").await;
        link("questions to worker 0").await;
        link("questions to worker 1").await;
        link("deliveries to gateway 0").await;
        link("deliveries to gateway 1").await;
        link("clients").await;
        let services = block_in_place(|| OwnServices::start(kafka.port()));
        let server = block_in_place(|| serve(&links, &services));
        Self { server, links, services }
    }

    pub fn link(&self, name: &str) -> &Proxy {
        &self.links.iter().find(|link| link.name == name).unwrap().proxy
    }

    /// A deployment that knows nothing of the one before.
    pub fn renew(&mut self) {
        self.server = block_in_place(|| serve(&self.links, &self.services));
    }
}

/// Leads every link to where it belongs.
fn serve(links: &[Link], services: &OwnServices) -> Server {
    let [kafka, redis, mysql, mongodb, .., clients] = links else { panic!("all links are there") };
    let of = |number: usize| links[number].proxy.address;
    let places = Places { questions: [of(4), of(5)], deliveries: [of(6), of(7)], ..Places::direct() };
    let stores =
        [Service::Kafka, Service::Redis, Service::Mysql, Service::Mongo].map(|service| services.address(service));
    let roles = places.workers.iter().chain(&places.gateways).map(|at| at.rpc);
    for (link, target) in links.iter().zip(stores.into_iter().chain(roles)) {
        link.proxy.lead_to(vec![target]);
    }
    let doors = places.gateways.map(|at| Endpoint::of_this_run(at.tcp, at.websocket));
    clients.proxy.lead_to(doors.map(Endpoint::socket).into());
    let deployment = Deployment::new(Services {
        kafka: kafka.proxy.address.to_string(),
        redis: format!("redis://{}/", redis.proxy.address),
        mysql: format!("mysql://im:im@{}/im", mysql.proxy.address),
        mongodb: format!("mongodb://{}/?directConnection=true", mongodb.proxy.address),
    });
    let mut server = Server::start_cluster_at(Settings::for_tests(), deployment, &places);
    // One address for both gateways, as behind a load balancer.
    server.set_doors(vec![Endpoint::of_this_run(clients.proxy.address, clients.proxy.address)]);
    server
}
